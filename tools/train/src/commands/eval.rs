//! `train eval`.

use std::path::PathBuf;
use std::sync::Arc;

use cchaha::kernels::{Pool, physical_cores};
use cchaha::{Model, SessionOptions};
use cchaha_cli::args::{positive, whole};
use cchaha_cli::exit::{Failure, Result};
use cchaha_cli::interrupt::Stoppable;
use cchaha_cli::output::{Align, Out, Table, progress};
use clap::{Args, ValueHint};
use serde::Serialize;

use crate::corpus::{self, Document, Split};
use crate::evaluate::{self, Cost};
use crate::run::Checkpoint;

/// What to measure.
#[derive(Debug, Args)]
pub struct Eval {
    /// Folder of a run, or a GGUF file
    #[arg(value_name = "MODEL", value_hint = ValueHint::AnyPath)]
    model: PathBuf,

    /// Folder of the corpus
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    corpus: PathBuf,

    /// About so many bytes of documents drawn by lot, the same for every model; 0 for all
    #[arg(long, value_name = "N", default_value = "0", value_parser = whole::<usize>)]
    bytes: usize,

    /// Only documents of this language
    #[arg(long, value_name = "NAME")]
    language: Option<String>,

    /// Tokens a GGUF model sees at most; a run sees its own context
    #[arg(long, value_name = "N", default_value = "1024", value_parser = positive)]
    window: usize,

    /// Worker threads [default: one per physical core]
    #[arg(long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,

    /// One line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    language: String,
    documents: usize,
    bytes: usize,
    tokens: usize,
    bits_per_byte: f64,
}

impl Eval {
    /// Measures and prints.
    ///
    /// # Errors
    /// Where the model or the corpus cannot be read, and on Ctrl-C.
    pub fn run(self) -> Result {
        let documents: Vec<Document> = corpus::documents(&self.corpus, Split::Heldout)
            .and_then(Iterator::collect)
            .map_err(|error| Failure::usage(error.to_string()))?;
        let wanted =
            |document: &Document| self.language.as_ref().is_none_or(|name| *name == document.language);
        let documents = evaluate::sample(documents.into_iter().filter(wanted).collect(), self.bytes);
        if documents.is_empty() {
            return Err(Failure::usage("no held-out document of that kind; see --language"));
        }
        let stop = Stoppable::begin();
        let total: usize = documents.iter().map(|document| document.text.len()).sum();
        let mut ends = documents.iter().scan(0, |sum, document| {
            *sum += document.text.len();
            Some(*sum)
        });
        let mut bar = progress("bytes measured, as");
        let mut seen = |number: usize| {
            if number > 0 {
                bar.at(ends.next().unwrap_or(total), total);
            }
            stop.flow()
        };
        let costs = if self.model.is_dir() {
            let checkpoint = Checkpoint::require(&self.model)?;
            let (tokenizer, _) = super::train::read_tokenizer(&self.model.join("tokenizer.gguf"))?;
            let pool = Pool::new(self.threads.unwrap_or_else(physical_cores)).map_err(Failure::other)?;
            evaluate::of_checkpoint(&pool, &checkpoint, &tokenizer, &documents, &|_| {}, &mut seen)?
        } else {
            let model = Arc::new(Model::open(&self.model)?);
            let options = SessionOptions { threads: self.threads, ..SessionOptions::default() };
            evaluate::of_model(&model, &options, &documents, self.window, &mut seen)?
        };
        drop(bar);
        self.print(&documents, &costs)
    }

    fn print(&self, documents: &[Document], costs: &[Cost]) -> Result {
        let mut languages: Vec<&str> = documents.iter().map(|document| document.language.as_str()).collect();
        languages.sort_unstable();
        languages.dedup();
        let row = |name: &str, costs: Vec<&Cost>| {
            let sum = Cost::sum(costs.iter().copied());
            Row {
                language: name.to_owned(),
                documents: costs.len(),
                bytes: sum.bytes,
                tokens: sum.tokens,
                bits_per_byte: sum.bits_per_byte(),
            }
        };
        let of = |name: &str| {
            let pairs = documents.iter().zip(costs).filter(|(document, _)| document.language == name);
            pairs.map(|(_, cost)| cost).collect()
        };
        let mut rows: Vec<Row> = languages.into_iter().map(|name| row(name, of(name))).collect();
        rows.push(row("all", costs.iter().collect()));
        let mut out = Out::new();
        if self.json {
            out.json(&rows)?;
            return out.flush();
        }
        let right = Align::Right;
        let mut table = Table::new(&[
            ("language", Align::Left),
            ("documents", right),
            ("bytes", right),
            ("bytes per token", right),
            ("bits per byte", right),
        ]);
        for row in rows {
            table.row([
                row.language,
                row.documents.to_string(),
                row.bytes.to_string(),
                format!("{:.3}", row.bytes as f64 / row.tokens as f64),
                format!("{:.4}", row.bits_per_byte),
            ]);
        }
        table.print(&mut out)?;
        out.flush()
    }
}
