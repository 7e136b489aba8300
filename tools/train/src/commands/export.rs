//! `train export`.

use std::path::PathBuf;

use cchaha::plan::Format;
use cchaha_cli::exit::Result;
use clap::{Args, ValueHint};

use crate::run::Checkpoint;

/// What to write.
#[derive(Debug, Args)]
pub struct Export {
    /// Folder of the run
    #[arg(value_name = "RUN", value_hint = ValueHint::DirPath)]
    run: PathBuf,

    /// File to write
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: PathBuf,

    /// Format of the matrices, such as F32, BF16, Q8_0; norms stay in F32
    #[arg(long = "type", value_name = "TYPE", default_value = "F32", value_parser = format)]
    format: Format,

    /// The model's name
    #[arg(long, value_name = "NAME", default_value = "cchaha")]
    name: String,

    /// What people should know of it, in one line
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

fn format(name: &str) -> std::result::Result<Format, String> {
    Format::from_name(name).ok_or_else(|| "expected a format such as F32, BF16 or Q8_0".into())
}

impl Export {
    /// Writes it.
    ///
    /// # Errors
    /// As [`crate::export::export`].
    pub fn run(self) -> Result {
        let checkpoint = Checkpoint::require(&self.run)?;
        let vocabulary = self.run.join("tokenizer.gguf");
        let mut about = vec![("general.name", self.name)];
        about.extend(self.description.map(|text| ("general.description", text)));
        crate::export::export(&checkpoint, &vocabulary, about, self.format, &self.out)
    }
}
