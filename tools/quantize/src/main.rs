//! `quantize`: from a published checkpoint to a small GGUF, and how much that loses.
//!
//! ```text
//! source   what is read: GGUF or the Hugging Face layout, row by row
//! recipe   which format each tensor gets
//! convert  rows -> blocks -> a file, in pieces and in one step
//! ```
#![forbid(unsafe_code)]

mod allocate;
mod budget;
mod checksum;
mod commands;
mod convert;
mod evaluate;
mod hf;
mod imatrix;
mod measured;
mod picture;
mod pipeline;
mod recipe;
mod source;
mod target;

use cchaha_cli::{args, exit, interrupt, output};
use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  quantize model-f16.gguf model-q4_k_m.gguf --type Q4_K_M
  quantize Qwen2.5-Coder-1.5B/ qwen.gguf --type Q4_K_M --imatrix qwen.imatrix.gguf
  quantize model-f16.gguf --type Q3_K_M --tensor-type ffn_down=Q5_K --dry-run
  quantize imatrix -m model-f16.gguf --text calibration.txt -o model.imatrix.gguf
  quantize model-f16.gguf model-4.5.gguf --to-bits-per-weight 4.5 --text calibration.txt
  quantize compare model-f16.gguf model-4.5.gguf --text held-out.txt
  quantize verify model-q4_k_m.gguf

The output appears only when it is complete. Every flag --some-name can also be set by the
environment variable CCHAHA_ARG_SOME_NAME. Exit codes: 0 ok, 1 failure, 2 usage,
3 model missing or corrupt, 4 does not fit in memory, 130 interrupted.";

/// Make small GGUF files of models, and measure what was lost.
#[derive(Debug, Parser)]
#[command(
    name = "quantize",
    version,
    after_help = EXAMPLES,
    max_term_width = 110,
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    convert: commands::convert::Convert,

    /// Say more on stderr
    #[arg(short, long, global = true)]
    verbose: bool,
}

/// What else there is to do.
#[derive(Debug, Subcommand)]
enum Command {
    Imatrix(commands::imatrix::CollectImatrix),
    Compare(commands::compare::Compare),
    Verify(commands::verify::Verify),
}

fn main() -> std::process::ExitCode {
    let result = args::parse::<Cli>().and_then(|cli| {
        output::start_logs(cli.verbose);
        interrupt::listen()?;
        match cli.command {
            None => cli.convert.run(),
            Some(Command::Imatrix(command)) => command.run(),
            Some(Command::Compare(command)) => command.run(),
            Some(Command::Verify(command)) => command.run(),
        }
    });
    exit::report(result)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_is_consistent() {
        cchaha_cli::args::command::<super::Cli>().debug_assert();
    }
}
