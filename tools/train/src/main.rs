//! `train`: from published packages to a small code model.
#![forbid(unsafe_code)]

use cchaha_cli::{args, exit, interrupt, output};
use cchaha_train::commands;
use clap::Parser;

const EXAMPLES: &str = "\
Examples:
  train pretrain --corpus corpus/ --tokenizer tokenizer.gguf --out run/
  train code --corpus corpus/ --tokenizer tokenizer.gguf --from run/ --out run-code/
  train export run-code/ tiny.gguf --type q8_0
  train eval tiny.gguf --corpus corpus/

A run that was stopped, by Ctrl-C or otherwise, goes on where it was when it is started again with the same --out.";

/// Train a small code model from scratch.
#[derive(Debug, Parser)]
#[command(name = "train", version, after_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: commands::Command,

    /// Say more on stderr
    #[arg(short, long, global = true)]
    verbose: bool,
}

fn main() -> std::process::ExitCode {
    let result = args::parse::<Cli>().and_then(|cli| {
        output::start_logs(cli.verbose);
        interrupt::listen()?;
        commands::run(cli.command)
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
