//! Fill in the middle: the prompt that makes a code model write what belongs between two pieces of text.
//!
//! Models trained for it (Bavarian et al. 2022, arXiv 2207.14255) mark the pieces with control tokens, each
//! family with its own and in its own order: one row of [`FAMILIES`] each.

mod context;
mod join;

pub use context::{digest, fit_end, fit_start, names_near};
pub use join::Join;

use crate::text::{Special, Tokenizer};

/// A piece of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    PrefixMark,
    Prefix,
    SuffixMark,
    Suffix,
    MiddleMark,
}

use Part::{MiddleMark, Prefix, PrefixMark, Suffix, SuffixMark};

const PREFIX_SUFFIX_MIDDLE: &[Part] = &[PrefixMark, Prefix, SuffixMark, Suffix, MiddleMark];

/// How one family of models writes a prompt.
#[derive(Debug)]
struct Family {
    name: &'static str,
    /// Texts of the marks before the prefix, before the suffix, and where the model starts, if it has that one.
    marks: [Option<&'static str>; 3],
    layout: &'static [Part],
    /// Whether the suffix is encoded as the continuation of a text. SentencePiece puts a space before every
    /// text; before the prefix that is wanted, before the suffix it would be a space the file does not have.
    suffix_continues: bool,
    /// Further tokens that end an answer, where the vocabulary has them.
    ends: &'static [&'static str],
    /// The marks before a repository's name and before each file, where the family was trained on whole repositories.
    repository: Option<[&'static str; 2]>,
}

/// Tried in order; a family is chosen when the vocabulary has all its marks.
const FAMILIES: &[Family] = &[
    // Qwen2.5-Coder technical report, arXiv 2409.12186, section 3.2.
    Family {
        name: "qwen",
        marks: [Some("<|fim_prefix|>"), Some("<|fim_suffix|>"), Some("<|fim_middle|>")],
        layout: PREFIX_SUFFIX_MIDDLE,
        suffix_continues: false,
        ends: &["<|endoftext|>", "<|im_end|>", "<|fim_pad|>", "<|file_sep|>", "<|repo_name|>"],
        repository: Some(["<|repo_name|>", "<|file_sep|>"]),
    },
    // StarCoder, arXiv 2305.06161, and StarCoder2, arXiv 2402.19173; Granite code uses the same marks.
    Family {
        name: "starcoder",
        marks: [Some("<fim_prefix>"), Some("<fim_suffix>"), Some("<fim_middle>")],
        layout: PREFIX_SUFFIX_MIDDLE,
        suffix_continues: false,
        ends: &["<|endoftext|>", "<fim_pad>", "<file_sep>", "<repo_name>"],
        repository: Some(["<repo_name>", "<file_sep>"]),
    },
    // DeepSeek-Coder, arXiv 2401.14196, section 3.1.2: begin, hole, end.
    Family {
        name: "deepseek",
        marks: [Some("<｜fim▁begin｜>"), Some("<｜fim▁hole｜>"), Some("<｜fim▁end｜>")],
        layout: PREFIX_SUFFIX_MIDDLE,
        suffix_continues: false,
        ends: &["<｜end▁of▁sentence｜>", "<|EOT|>"],
        repository: None,
    },
    // Code Llama, arXiv 2308.12950, section 2.3: `▁<PRE> prefix ▁<SUF>suffix ▁<MID>`.
    Family {
        name: "codellama",
        marks: [Some("▁<PRE>"), Some("▁<SUF>"), Some("▁<MID>")],
        layout: PREFIX_SUFFIX_MIDDLE,
        suffix_continues: true,
        ends: &["▁<EOT>", "</s>"],
        repository: None,
    },
    // Codestral, as Mistral's own tokenizer assembles it: `[SUFFIX]suffix[PREFIX]prefix`, and no third mark.
    Family {
        name: "codestral",
        marks: [Some("[PREFIX]"), Some("[SUFFIX]"), None],
        layout: &[SuffixMark, Suffix, PrefixMark, Prefix],
        suffix_continues: true,
        ends: &["</s>"],
        repository: None,
    },
];

/// For files that name no known marks but declare their ids.
const DECLARED: Family = Family {
    name: "declared",
    marks: [None; 3],
    layout: PREFIX_SUFFIX_MIDDLE,
    suffix_continues: false,
    ends: &[],
    repository: None,
};

/// A character no text begins with in practice; what is encoded after it is a continuation.
const ANCHOR: &str = "☺";

/// What fill in the middle needs of a model's vocabulary.
struct FimVocab<'a> {
    /// Encodes plain text; marks in it are text.
    encode: &'a dyn Fn(&str) -> Vec<u32>,
    /// The token of exactly this text, marks included.
    id_of: &'a dyn Fn(&str) -> Option<u32>,
    /// The token every prompt of this model begins with, if any.
    bos: Option<u32>,
    /// The ids the file declares for the marks: prefix, suffix, middle.
    declared: [Option<u32>; 3],
}

/// A prompt to fill in the middle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FimPrompt {
    /// The name of the family whose format it is.
    pub family: &'static str,
    /// The prompt.
    pub tokens: Vec<u32>,
    /// Tokens that end the answer, besides the model's own end of text: the marks and their like.
    pub ends: Vec<u32>,
}

/// Why there is no prompt or no place in the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FimError {
    /// A mark is missing.
    #[error(
        "the model cannot fill in the middle: its vocabulary has no token {token} ({role}); \
         use a code model trained for it, or `complete`"
    )]
    MissingToken {
        /// Text of the mark, or the metadata key that could declare it.
        token: &'static str,
        /// What it is for.
        role: &'static str,
    },
    /// A line or column is 0.
    #[error("lines and columns are counted from 1, so {line}:{column} is no place in a file")]
    Zero {
        /// The line asked for.
        line: usize,
        /// The column asked for.
        column: usize,
    },
    /// The file is shorter.
    #[error("there is no line {line}: the file has {lines}")]
    LineBeyondEnd {
        /// The line asked for.
        line: usize,
        /// Lines in the file.
        lines: usize,
    },
    /// The line is shorter.
    #[error("there is no column {column} in line {line}: the columns are 1 to {columns}")]
    ColumnBeyondEnd {
        /// The line asked for.
        line: usize,
        /// The column asked for.
        column: usize,
        /// The last column, behind the last character.
        columns: usize,
    },
}

/// Where a mark stands, and the metadata key that declares its id.
const ROLES: [(&str, &str); 3] = [
    ("before the prefix", "tokenizer.ggml.fim_pre_token_id"),
    ("before the suffix", "tokenizer.ggml.fim_suf_token_id"),
    ("before the answer", "tokenizer.ggml.fim_mid_token_id"),
];

/// Other files a model is to know of, and where the hole is among them.
#[derive(Debug, Clone, Copy)]
pub struct Repository<'a> {
    /// Its name.
    pub name: &'a str,
    /// Path and text of other files.
    pub files: &'a [(String, String)],
    /// Path of the file with the hole.
    pub path: &'a str,
}

/// The prompt after which the model writes what stands between `prefix` and `suffix`, either of which may be
/// empty. Where the family has no marks for repositories, the text of other files stands before the prefix.
///
/// # Errors
/// [`FimError::MissingToken`] where the vocabulary has no family's marks.
pub fn prompt(
    tokenizer: &Tokenizer,
    repository: Option<&Repository<'_>>,
    prefix: &str,
    suffix: &str,
) -> Result<FimPrompt, FimError> {
    let marks = tokenizer.fim();
    let vocab = FimVocab {
        encode: &|text| tokenizer.encode(text, Special::Plain),
        id_of: &|text| tokenizer.id_of(text),
        bos: tokenizer.bos().filter(|_| tokenizer.add_bos()),
        declared: [marks.prefix, marks.suffix, marks.middle],
    };
    assemble(&vocab, repository, prefix, suffix)
}

fn assemble(
    vocab: &FimVocab<'_>,
    repository: Option<&Repository<'_>>,
    prefix: &str,
    suffix: &str,
) -> Result<FimPrompt, FimError> {
    let (family, marks) = family_of(vocab)?;
    let mut tokens: Vec<u32> = vocab.bos.into_iter().collect();
    let mut together = String::new();
    if let Some(Repository { name, files, path }) = repository {
        let ids = family.repository.map(|marks| marks.map(vocab.id_of));
        if let Some([Some(name_mark), Some(file_mark)]) = ids {
            tokens.push(name_mark);
            tokens.extend((vocab.encode)(&format!("{name}\n")));
            for (path, text) in *files {
                tokens.push(file_mark);
                tokens.extend((vocab.encode)(&format!("{path}\n{text}\n")));
            }
            tokens.push(file_mark);
            tokens.extend((vocab.encode)(&format!("{path}\n")));
        } else {
            files.iter().for_each(|(_, text)| together.push_str(text));
        }
    }
    together.push_str(prefix);
    let prefix = together.as_str();
    for part in family.layout {
        match part {
            PrefixMark => tokens.extend(marks[0]),
            SuffixMark => tokens.extend(marks[1]),
            MiddleMark => tokens.extend(marks[2]),
            Prefix => tokens.extend((vocab.encode)(prefix)),
            Suffix if family.suffix_continues => tokens.extend(continuation(vocab.encode, suffix)),
            Suffix => tokens.extend((vocab.encode)(suffix)),
        }
    }
    let further = family.ends.iter().filter_map(|text| (vocab.id_of)(text));
    let mut ends: Vec<u32> = marks.into_iter().flatten().chain(further).collect();
    ends.sort_unstable();
    ends.dedup();
    Ok(FimPrompt { family: family.name, tokens, ends })
}

/// The family of a vocabulary and the ids of its marks.
fn family_of(vocab: &FimVocab<'_>) -> Result<(&'static Family, [Option<u32>; 3]), FimError> {
    let found = |family: &Family| family.marks.map(|mark| mark.and_then(vocab.id_of));
    let missing = |family: &Family, ids: &[Option<u32>; 3]| {
        (0..3).filter(|&i| family.marks[i].is_some() && ids[i].is_none()).count()
    };
    if let Some(family) = FAMILIES.iter().find(|family| missing(family, &found(family)) == 0) {
        return Ok((family, found(family)));
    }
    let declared = vocab.declared;
    if declared.iter().all(Option::is_some) {
        return Ok((&DECLARED, declared));
    }
    // Name the mark that is wanting: of what the file declares, or else of the family it comes nearest to.
    if let (true, Some(at)) =
        (declared.iter().any(Option::is_some), declared.iter().position(Option::is_none))
    {
        return Err(FimError::MissingToken { token: ROLES[at].1, role: ROLES[at].0 });
    }
    let present = |family: &&Family| found(family).iter().flatten().count();
    let nearest = FAMILIES.iter().rev().max_by_key(present).unwrap_or(&FAMILIES[0]);
    let ids = found(nearest);
    let at = (0..3).find(|&i| nearest.marks[i].is_some() && ids[i].is_none()).unwrap_or(0);
    Err(FimError::MissingToken { token: nearest.marks[at].unwrap_or(ROLES[at].1), role: ROLES[at].0 })
}

/// `text` encoded as if other text came before it.
fn continuation(encode: &dyn Fn(&str) -> Vec<u32>, text: &str) -> Vec<u32> {
    let anchor = encode(ANCHOR);
    let both = encode(&format!("{ANCHOR}{text}"));
    match both.strip_prefix(anchor.as_slice()) {
        Some(rest) => rest.to_vec(),
        // A vocabulary that merges the anchor with what follows has no such space to avoid.
        None => encode(text),
    }
}

/// Splits `source` at a place in it. Lines and columns count from 1; a column is a character (Unicode scalar
/// value), and the column behind a line's last character is its end. A line ends before `\n` or `\r\n`.
pub fn split_at(source: &str, line: usize, column: usize) -> Result<(&str, &str), FimError> {
    if line == 0 || column == 0 {
        return Err(FimError::Zero { line, column });
    }
    let mut start = 0;
    for (i, text) in source.split('\n').enumerate() {
        if i + 1 < line {
            start += text.len() + 1;
            continue;
        }
        let ends_with_newline = start + text.len() < source.len();
        let text = if ends_with_newline { text.strip_suffix('\r').unwrap_or(text) } else { text };
        let mut places = text.char_indices().map(|(at, _)| at).chain([text.len()]);
        let Some(at) = places.nth(column - 1) else {
            return Err(FimError::ColumnBeyondEnd { line, column, columns: text.chars().count() + 1 });
        };
        return Ok(source.split_at(start + at));
    }
    Err(FimError::LineBeyondEnd { line, lines: source.split('\n').count() })
}

#[cfg(test)]
#[path = "fim_tests.rs"]
mod tests;
