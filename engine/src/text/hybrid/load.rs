//! A hybrid vocabulary in a GGUF file: `tokenizer.ggml.*` for what every tokenizer has, `cchaha.tokenizer.*` for the rest.
//!
//! ```text
//! tokenizer.ggml.model           "cchaha"
//! tokenizer.ggml.tokens          what each token reads as, for people and for checks
//! cchaha.tokenizer.version       1
//! cchaha.tokenizer.n_control     tokens before the first one that is text
//! cchaha.tokenizer.keywords      the words of the closed vocabulary
//! cchaha.tokenizer.shuffled      whether classes are drawn by lot, for a placebo; absent otherwise
//! cchaha.tokenizer.n_joins       four counts: structure, identifiers, literals, prose
//! cchaha.tokenizer.joins         left id, right id, 1 where two whole parts are joined; by class and rank
//! ```

use cchaha_gguf::{Metadata, Strings};

use super::{Hybrid, HybridSpec, Join, TokenClass};
use crate::text::{Pieces, TokenizerError};

const VERSION: u32 = 1;

impl HybridSpec {
    /// Reads `cchaha.tokenizer.*`.
    pub fn from_gguf(meta: &Metadata) -> Result<HybridSpec, TokenizerError> {
        let wrong = |problem: String| TokenizerError::Hybrid { problem };
        let version = meta.require_u32("cchaha.tokenizer.version")?;
        if version != VERSION {
            return Err(wrong(format!("has version {version}, and this program reads version {VERSION}")));
        }
        let keywords = meta.require_strings("cchaha.tokenizer.keywords")?;
        let keywords = keywords.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let counts = meta.require_i32s("cchaha.tokenizer.n_joins")?;
        let joins = meta.require_i32s("cchaha.tokenizer.joins")?;
        let (triples, rest) = joins.as_chunks::<3>();
        let counts: Vec<u32> = counts.iter().map(|&n| u32::try_from(n).unwrap_or(u32::MAX)).collect();
        let total: u64 = counts.iter().map(|&n| u64::from(n)).sum();
        if counts.len() != 4 || !rest.is_empty() || total != triples.len() as u64 {
            return Err(wrong(format!(
                "has {} numbers in joins, expected three for each of the {total} that n_joins counts",
                joins.len()
            )));
        }
        // What is negative becomes an id beyond all tokens, and is refused as such.
        let join = |&[left, right, parts]: &[i32; 3]| Join {
            left: u32::try_from(left).unwrap_or(u32::MAX),
            right: u32::try_from(right).unwrap_or(u32::MAX),
            parts: parts != 0,
        };
        let mut triples = triples.iter().map(join);
        let mut spec = HybridSpec {
            n_control: meta.require_u32("cchaha.tokenizer.n_control")?,
            keywords,
            shuffled: meta.bool("cchaha.tokenizer.shuffled")?.unwrap_or(false),
            ..HybridSpec::default()
        };
        for (joins, &n) in spec.joins.iter_mut().zip(&counts) {
            joins.extend(triples.by_ref().take(n as usize));
        }
        Ok(spec)
    }

    /// Writes the whole tokenizer: these control tokens, then everything that follows from the rest.
    ///
    /// # Errors
    /// Where the vocabulary is not sound, or `control` are not as many as it says.
    pub fn write(&self, control: &[&str], meta: &mut Metadata) -> Result<(), TokenizerError> {
        let hybrid = Hybrid::new(self)?;
        if control.len() != self.n_control as usize {
            let problem = format!("expects {} control tokens, not {}", self.n_control, control.len());
            return Err(TokenizerError::Hybrid { problem });
        }
        let ids = self.n_control..hybrid.len() as u32;
        let tokens: Vec<String> =
            control.iter().map(|&text| text.to_owned()).chain(ids.map(|id| hybrid.text(id))).collect();
        let kind = |id: u32| match hybrid.class(id) {
            TokenClass::Control => 3,
            _ => 1,
        };
        let kinds: Vec<i32> = (0..hybrid.len() as u32).map(kind).collect();
        let joins = self.joins.iter().flatten();
        let joins: Vec<i32> =
            joins.flat_map(|join| [join.left as i32, join.right as i32, i32::from(join.parts)]).collect();
        let counts: Vec<i32> = self.joins.iter().map(|joins| joins.len() as i32).collect();
        meta.set("tokenizer.ggml.model", "cchaha");
        meta.set("tokenizer.ggml.tokens", tokens.iter().collect::<Strings>());
        meta.set("tokenizer.ggml.token_type", kinds);
        meta.set("cchaha.tokenizer.version", VERSION);
        meta.set("cchaha.tokenizer.n_control", self.n_control);
        meta.set("cchaha.tokenizer.keywords", self.keywords.iter().collect::<Strings>());
        if self.shuffled {
            meta.set("cchaha.tokenizer.shuffled", true);
        }
        meta.set("cchaha.tokenizer.n_joins", counts);
        meta.set("cchaha.tokenizer.joins", joins);
        Ok(())
    }
}

impl Hybrid {
    /// Whether the file's tokens are the ones that follow from its keywords and joins.
    pub(in crate::text) fn check(&self, tokens: &Pieces) -> Result<(), TokenizerError> {
        let wrong = |problem: String| TokenizerError::Hybrid { problem };
        if tokens.len() != self.len() {
            return Err(wrong(format!(
                "makes {} tokens, but tokenizer.ggml.tokens has {}",
                self.len(),
                tokens.len()
            )));
        }
        for id in self.starts[1]..self.starts[6] {
            let text = self.text(id);
            if tokens.get(id as usize) != Some(text.as_bytes()) {
                return Err(wrong(format!(
                    "makes token {id} {text:?}, but tokenizer.ggml.tokens has another"
                )));
            }
        }
        Ok(())
    }
}
