//! The studies, one file each.

mod bits;
mod bodies;
mod files;
mod fim;
mod programs;
mod rope;
mod window;

use std::path::PathBuf;
use std::sync::Arc;

use cchaha::{Model, SessionOptions};
use cchaha_cli::args::positive;
use cchaha_cli::exit::Result;
use clap::{Args, Subcommand, ValueHint};

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write the functions of HumanEval and run their tests: pass@1, or pass@k of several samples
    Humaneval(programs::Programs),
    /// The same for MBPP's tasks
    Mbpp(programs::Programs),
    WindowStudy(window::WindowStudy),
    RopeStudy(rope::RopeStudy),
    FimStudy(fim::FimStudy),
    Bits(bits::Bits),
    Bodies(bodies::Bodies),
}

/// Measures it.
pub(crate) fn run(command: Command) -> Result {
    match command {
        Command::Humaneval(command) => command.run(&programs::HUMANEVAL),
        Command::Mbpp(command) => command.run(&programs::MBPP),
        Command::WindowStudy(command) => command.run(),
        Command::RopeStudy(command) => command.run(),
        Command::FimStudy(command) => command.run(),
        Command::Bits(command) => command.run(),
        Command::Bodies(command) => command.run(),
    }
}

/// Which model, on what, and where results go.
#[derive(Debug, Args)]
pub(crate) struct Setup {
    /// GGUF file of the model
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) model: PathBuf,

    /// Folder of the results; a study that is there goes on
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: PathBuf,

    /// Worker threads [default: one per physical core]
    #[arg(short, long, value_name = "N", value_parser = positive)]
    pub(crate) threads: Option<usize>,
}

impl Setup {
    pub(crate) fn model(&self) -> Result<Arc<Model>> {
        Ok(Arc::new(Model::open(&self.model)?))
    }

    pub(crate) fn options(&self) -> SessionOptions {
        SessionOptions { threads: self.threads, ..SessionOptions::default() }
    }

    /// The model's file name, for settings.
    pub(crate) fn model_file(&self) -> String {
        self.model.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}
