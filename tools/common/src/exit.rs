//! How the program ends: failures, their one-sentence messages and their exit codes.
//!
//! 0 ok, 1 failure, 2 usage, 3 model missing or corrupt, 4 does not fit in memory, 5 device absent, 130 interrupted:
//! the engine's kinds of errors decide ([`ErrorKind::exit_code`]).

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use cchaha::{Error, ErrorKind};

use crate::output::ERROR;

/// Shorthand for results of this program.
pub type Result<T = ()> = std::result::Result<T, Failure>;

/// Why the program ends early.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    /// One sentence; empty where there is nothing to say.
    message: String,
    /// What to do about it, where that takes more than a sentence.
    hint: Option<String>,
}

impl Failure {
    /// A failure of this kind with its sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Failure {
        Failure { code: kind.exit_code(), message: message.into(), hint: None }
    }

    /// Flags, prompt or input are not usable.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(ErrorKind::Usage, message)
    }

    /// A model or another input file is missing or damaged.
    pub fn model(message: impl Into<String>) -> Failure {
        Failure::new(ErrorKind::Model, message)
    }

    /// Anything without a kind of its own.
    pub fn other(message: impl Display) -> Failure {
        Failure::new(ErrorKind::Other, message.to_string())
    }

    /// Everything that needs saying has been said.
    pub fn silent(code: u8) -> Failure {
        Failure { code, message: String::new(), hint: None }
    }

    /// Ctrl-C: the user knows why.
    pub fn interrupted() -> Failure {
        Failure::silent(ErrorKind::Interrupted.exit_code())
    }

    /// stdout could not be written. A reader that went away (`| head`) has what it wanted, so that is no failure.
    pub fn stdout(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::silent(0),
            _ => Failure::other(format!("cannot write to stdout: {error}")),
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..self }
    }

    /// Whether only one request failed or was stopped, so that a conversation can go on.
    pub fn is_passing(&self) -> bool {
        [ErrorKind::Usage, ErrorKind::Interrupted].map(ErrorKind::exit_code).contains(&self.code)
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error.kind() {
            ErrorKind::Interrupted => Failure::interrupted(),
            kind => Failure::new(kind, error.to_string()),
        }
    }
}

/// Prints what went wrong, if anything, and gives the exit code.
pub fn report(result: Result) -> ExitCode {
    let Err(Failure { code, message, hint }) = result else { return ExitCode::SUCCESS };
    if !message.is_empty() {
        anstream::eprintln!("{ERROR}error:{ERROR:#} {message}");
    }
    if let Some(hint) = hint {
        anstream::eprintln!("\n{hint}");
    }
    ExitCode::from(code)
}
