//! `cchaha-run`: complete, chat, fill in the middle, score and bench with open code models.
//!
//! stdout carries the result and nothing else; logs and progress go to stderr. What the exit codes mean stands in
//! [`cchaha_cli::exit`].
#![forbid(unsafe_code)]

mod answer;
mod args;
mod commands;
mod embedded;
mod hub;
mod model;
mod sampling;

use cchaha_cli::{exit, input, interrupt, output};

fn main() -> std::process::ExitCode {
    let result = args::parse().and_then(|cli| {
        output::start_logs(cli.verbose);
        interrupt::listen()?;
        commands::run(cli.command)
    });
    exit::report(result)
}
