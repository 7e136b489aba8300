//! What `train` does, one file each, in the order a model is made.

mod ablate;
mod corpus;
mod eval;
mod export;
mod tokenizer;
mod train;

use cchaha_cli::exit::Result;
use clap::Subcommand;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fetch packages and write training text
    Corpus(corpus::Corpus),
    /// Learn a vocabulary
    Tokenizer(tokenizer::Tokenizer),
    /// Learn from source text and prose
    Pretrain(train::Train),
    /// Learn code with half of the documents as fill in the middle
    Code(train::Train),
    /// Write a run's model as a GGUF file
    Export(export::Export),
    /// Train small models with and without each idea of the architecture, beside placebos
    Ablate(ablate::Ablate),
    /// Measure bits per byte of held-out text, of a run or of any GGUF model
    Eval(eval::Eval),
}

/// Does it.
///
/// # Errors
/// What the command could not do, in a sentence.
pub fn run(command: Command) -> Result {
    match command {
        Command::Corpus(command) => command.run(),
        Command::Tokenizer(command) => command.run(),
        Command::Pretrain(command) => command.run("pretrain"),
        Command::Code(command) => command.run("code"),
        Command::Export(command) => command.run(),
        Command::Ablate(command) => command.run(),
        Command::Eval(command) => command.run(),
    }
}
