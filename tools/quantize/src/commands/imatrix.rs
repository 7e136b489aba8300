//! `quantize imatrix`: how much each column of each weight matters on a text.

use std::path::PathBuf;

use cchaha::Model;
use cchaha_cli::args::positive;
use cchaha_cli::interrupt::Stoppable;
use cchaha_cli::output::{Out, plural, progress};
use clap::{Args, ValueHint};

use crate::evaluate::{Windows, backend, collect};
use crate::exit::{Failure, Result};
use crate::imatrix::Imatrix;
use crate::source::local;

const EXAMPLES: &str = "\
Examples:
  quantize imatrix -m model-f16.gguf --text calibration.txt -o model.imatrix.gguf
  quantize model-f16.gguf model-q4_k_m.gguf --type Q4_K_M --imatrix model.imatrix.gguf

The text should be like what the model will be used for; a few hundred kilobytes are plenty. The
file is llama.cpp's, and can be used there. A model in Q8_0 gives nearly the same and is faster.";

/// Measure how much each column of each weight matters on a text
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CollectImatrix {
    /// GGUF file of the model, best in F16 or Q8_0
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    model: PathBuf,

    /// The text; - is stdin
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    text: PathBuf,

    /// Where to write
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: PathBuf,

    /// Tokens of a window; windows do not see each other
    #[arg(short, long, value_name = "N", value_parser = positive, default_value_t = 512)]
    ctx: usize,

    /// Windows to use at most
    #[arg(long, value_name = "N", value_parser = positive)]
    windows: Option<usize>,

    /// Worker threads [default: one per physical core]
    #[arg(short = 'j', long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,

    /// Overwrite the output
    #[arg(short, long)]
    force: bool,
}

impl CollectImatrix {
    /// Runs the text through the model.
    pub(crate) fn run(self) -> Result {
        if self.output.exists() && !self.force {
            return Err(Failure::usage(format!(
                "{} exists; give another name, or --force to overwrite it",
                self.output.display()
            )));
        }
        let model = Model::open(local(&self.model)?)?;
        let windows = Windows::read(&model, &self.text, self.ctx, self.windows)?;
        let stop = Stoppable::begin();
        let mut bar = progress("measuring");
        let backend = backend(self.threads)?;
        let weights =
            collect(model.plan(), &backend, &windows, &stop, &mut |done, total| bar.at(done, total))?;
        drop(bar);
        let imatrix = Imatrix {
            weights,
            datasets: vec![self.text.display().to_string()],
            chunk_size: windows.len as u32,
            chunk_count: windows.tokens.len() as u32,
        };
        imatrix.write(&self.output)?;
        let mut out = Out::new();
        out.line(format_args!(
            "{}: {} from {}",
            self.output.display(),
            plural(imatrix.weights.len(), "weight"),
            plural(windows.tokens.len() * windows.len, "token")
        ))?;
        out.flush()
    }
}
