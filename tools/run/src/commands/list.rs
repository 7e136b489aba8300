//! `cchaha-run list`: the models in the hub's cache.

use clap::Args;
use serde::Serialize;

use crate::exit::Result;
use crate::hub::cache::RepoCache;
use crate::output::{Align, Out, Table, bytes};

/// List the GGUF models in the Hugging Face cache, whichever program fetched them
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Print one JSON object per file instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    model: String,
    bytes: u64,
    path: &'a std::path::Path,
}

impl List {
    pub(crate) fn run(self) -> Result {
        let mut out = Out::new();
        let mut table = Table::new(&[("model", Align::Left), ("size", Align::Right)]);
        let mut total = 0;
        for repo in RepoCache::all()? {
            for file in repo.files()? {
                let model = format!("hf:{}:{}", repo.repo, file.name);
                if self.json {
                    out.json(&Row { model, bytes: file.size, path: &file.path })?;
                } else {
                    table.row([model, bytes(file.size)]);
                }
                total += file.size;
            }
        }
        if !self.json {
            table.row(["total".to_owned(), bytes(total)]);
            table.print(&mut out)?;
        }
        out.flush()
    }
}
