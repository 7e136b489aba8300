//! The subcommands, one file each.

mod bench;
mod chat;
mod complete;
mod completions;
mod doctor;
mod fim;
mod inspect;
mod kernels;
mod list;
mod man;
mod plan;
mod pull;
mod rm;
mod score;
mod structure;
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
    Structure(structure::Show),
    Inspect(inspect::Inspect),
    Plan(plan::Plan),
    Pull(pull::Pull),
    List(list::List),
    Rm(rm::Remove),
    Kernels(kernels::Kernels),
    Doctor(doctor::Doctor),
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
        Command::Structure(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Pull(command) => command.run(),
        Command::List(command) => command.run(),
        Command::Rm(command) => command.run(),
        Command::Kernels(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    }
}
