//! `cchaha-eval`: what models, windows and rotary positions are worth, measured.
//!
//! ```text
//! commands  one study each: cases -> results -> a table, JSON and a picture
//! store     results, one line each, so that a study that was stopped goes on
//! tally     how many of them are there, on stderr
//! sandbox   runs a program that a model wrote
//! server    another engine, asked the same
//! ```
#![forbid(unsafe_code)]

mod chart;
mod commands;
mod sandbox;
mod server;
mod stats;
mod store;
mod tally;

use cchaha_cli::{args, exit, interrupt, output};
use clap::Parser;

const EXAMPLES: &str = "\
Examples:
  cchaha-eval humaneval -m model.gguf --data HumanEval.jsonl.gz --out results/humaneval
  cchaha-eval window-study -m model.gguf --files src --budgets 256,512 --out results/window
  cchaha-eval rope-study -m model.gguf --files src --out results/rope

A study that was stopped goes on where it was when it is started again with the same --out.";

/// Measure what models and code windows are worth.
#[derive(Debug, Parser)]
#[command(name = "cchaha-eval", version, after_help = EXAMPLES, max_term_width = 110)]
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
