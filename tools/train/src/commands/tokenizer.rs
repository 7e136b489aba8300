//! `tokenizer`: a corpus to a vocabulary.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use cchaha::gguf;
use cchaha::text::{Special, Tokenizer as Text};
use cchaha_cli::exit::{Failure, Result};
use cchaha_cli::output::{Align, Out, Table, progress};
use clap::{Args, ValueHint};

use crate::corpus::{Split, documents};
use crate::tokenizer::{Kind, learn_from};

/// Learn a vocabulary from a corpus, and measure it on what was held out
#[derive(Debug, Args)]
pub struct Tokenizer {
    /// The folder that `train corpus` made
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    corpus: PathBuf,

    /// The GGUF file to write
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: PathBuf,

    /// How many tokens
    #[arg(long, value_name = "N", value_parser = cchaha_cli::args::positive, default_value_t = 8192)]
    vocab: usize,

    /// What kind of vocabulary
    #[arg(long, value_enum, default_value_t = Kind::Hybrid)]
    kind: Kind,
}

impl Tokenizer {
    pub(super) fn run(self) -> Result {
        let started = Instant::now();
        let mut bar = None;
        let meta = learn_from(&self.corpus, self.kind, self.vocab, &mut |what, done, total| {
            if bar.as_ref().is_none_or(|(name, _)| name != what) {
                bar = Some((what.to_owned(), progress(what)));
            }
            if let Some((_, bar)) = &mut bar {
                bar.at(done, total);
            }
        })
        .map_err(Failure::other)?;
        drop(bar);
        let learned = started.elapsed();
        let text = Text::from_gguf(&meta).map_err(Failure::other)?;
        gguf::write(&self.out, &meta, &[], |_, _| Ok(())).map_err(Failure::other)?;

        // Bytes and tokens by language, of what was held out.
        let mut sizes = BTreeMap::<String, (usize, usize)>::new();
        let mut encoding = std::time::Duration::ZERO;
        for document in documents(&self.corpus, Split::Heldout).map_err(Failure::other)? {
            let document = document.map_err(Failure::other)?;
            let before = Instant::now();
            let ids = text.encode(&document.text, Special::Plain);
            encoding += before.elapsed();
            if text.decode(&ids, false) != document.text.as_bytes() {
                return Err(Failure::other(format!(
                    "{}/{} does not come back from its tokens: this is a bug",
                    document.package, document.path
                )));
            }
            let size = sizes.entry(document.language).or_default();
            *size = (size.0 + document.text.len(), size.1 + ids.len());
        }
        let mut out = Out::new();
        let mut table = Table::new(&[
            ("held out", Align::Left),
            ("bytes", Align::Right),
            ("tokens", Align::Right),
            ("bytes a token", Align::Right),
        ]);
        for (language, (bytes, tokens)) in &sizes {
            let mean = *bytes as f64 / (*tokens).max(1) as f64;
            table.row([language.clone(), bytes.to_string(), tokens.to_string(), format!("{mean:.3}")]);
        }
        table.print(&mut out)?;
        out.line(format_args!(
            "{}: {} tokens, learned in {:.0} s; one core encodes {:.0} MB/s",
            self.out.display(),
            text.vocab_len(),
            learned.as_secs_f64(),
            sizes.values().map(|size| size.0).sum::<usize>() as f64 / 1e6 / encoding.as_secs_f64().max(1e-9)
        ))
    }
}
