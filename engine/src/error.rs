//! The engine's one error: a kind, which decides a tool's exit code, and one sentence for the user.

use std::fmt;

/// What went wrong, in broad terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller's request or options are out of range.
    Usage,
    /// The model is missing, corrupt, or asks for something the engine does not know.
    Model,
    /// Memory does not suffice.
    DoesNotFit,
    /// The device is absent or lost.
    Device,
    /// The caller asked to stop.
    Interrupted,
    /// Anything else.
    Other,
}

impl ErrorKind {
    /// The exit code a program should end with.
    pub const fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Other => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Model => 3,
            ErrorKind::DoesNotFit => 4,
            ErrorKind::Device => 5,
            ErrorKind::Interrupted => 130,
        }
    }
}

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure: what, where, and what to do about it, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// A failure of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into() }
    }

    /// What kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn usage(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Usage, message)
    }

    pub(crate) fn model(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Model, message)
    }

    pub(crate) fn interrupted() -> Error {
        Error::new(ErrorKind::Interrupted, "interrupted")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<cchaha_plan::Error> for Error {
    fn from(error: cchaha_plan::Error) -> Error {
        use cchaha_plan::ErrorKind as Kind;
        let kind = match error.kind {
            Kind::Model | Kind::Unsupported => ErrorKind::Model,
            Kind::Usage => ErrorKind::Usage,
            Kind::DoesNotFit => ErrorKind::DoesNotFit,
            Kind::Device => ErrorKind::Device,
        };
        Error::new(kind, error.message)
    }
}

impl From<cchaha_gguf::Error> for Error {
    fn from(error: cchaha_gguf::Error) -> Error {
        Error::model(error.to_string())
    }
}

impl From<crate::sample::SampleError> for Error {
    fn from(error: crate::sample::SampleError) -> Error {
        use crate::sample::SampleError as Sample;
        let kind = match error {
            Sample::Range { .. }
            | Sample::Bias { .. }
            | Sample::UnknownToken { .. }
            | Sample::EmptyStop { .. } => ErrorKind::Usage,
            Sample::NothingLeft | Sample::Length { .. } | Sample::NotALogit { .. } => ErrorKind::Other,
        };
        Error::new(kind, error.to_string())
    }
}

impl From<crate::text::TokenizerError> for Error {
    fn from(error: crate::text::TokenizerError) -> Error {
        Error::model(error.to_string())
    }
}
