//! `cchaha-run rm`: removes a model from the hub's cache.

use cchaha::ErrorKind;
use clap::Args;

use crate::exit::{Failure, Result};
use crate::hub::Reference;
use crate::hub::cache::RepoCache;
use crate::hub::catalog::Known;
use crate::output::{Out, bytes};

/// Remove a model from the Hugging Face cache
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// As `cchaha-run list` prints it: hf:OWNER/REPO:FILE; without FILE or a quantization, all GGUF files of the
    /// repository
    #[arg(value_name = "NAME")]
    name: String,
}

impl Remove {
    pub(crate) fn run(self) -> Result {
        let reference: Reference = match Known::find(&self.name) {
            Some(known) => known.reference(),
            None => self.name.parse()?,
        };
        let cache = RepoCache::open(&reference.repo)?;
        let files = cache.files()?;
        let all: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        if all.is_empty() {
            let message =
                format!("hf:{} is not in the cache; `cchaha-run list` shows what is", reference.repo);
            return Err(Failure::new(ErrorKind::Model, message));
        }
        let names = if reference.quant.is_some() { reference.choose(&all)? } else { all };
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let freed = cache.remove(&names)?;
        let mut out = Out::new();
        out.line(format_args!("removed {}, {} freed", names.join(", "), bytes(freed)))?;
        out.flush()
    }
}
