//! `cchaha-run`: complete, chat, fill in the middle, score and bench with open code models.
//!
//! stdout carries the result and nothing else; logs and progress go to stderr. What the exit codes mean stands in
//! [`exit::Code`].
#![forbid(unsafe_code)]

mod answer;
mod args;
mod commands;
mod exit;
mod input;
mod interrupt;
mod model;
mod output;
mod sampling;

fn main() -> std::process::ExitCode {
    let result = args::parse().and_then(|cli| {
        output::start_logs(cli.verbose);
        interrupt::listen()?;
        commands::run(cli.command)
    });
    exit::report(result)
}
