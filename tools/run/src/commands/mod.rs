//! The subcommands, one file each.

mod bench;
mod chat;
mod complete;
mod completions;
mod fim;
mod inspect;
mod kernels;
mod man;
mod plan;
mod score;
mod tokenize;

use clap::Subcommand;

use crate::exit::Result;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Complete(complete::Complete),
    Chat(chat::Chat),
    Fim(fim::Fim),
    Tokenize(tokenize::Tokenize),
    Score(score::Score),
    Inspect(inspect::Inspect),
    Plan(plan::Plan),
    Kernels(kernels::Kernels),
    Bench(bench::Bench),
    Completions(completions::Completions),
    Man(man::Man),
}

/// Does it.
pub(crate) fn run(command: Command) -> Result {
    match command {
        Command::Complete(command) => command.run(),
        Command::Chat(command) => command.run(),
        Command::Fim(command) => command.run(),
        Command::Tokenize(command) => command.run(),
        Command::Score(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Kernels(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    }
}
