//! What can be wrong with a model file, each in one sentence: where, what, and what to do.

use std::fmt;
use std::io;

/// Why a GGUF file could not be opened, read or written.
///
/// `file` is the path as given (or the name given to [`Gguf::from_bytes`](crate::Gguf::from_bytes)), `at` a byte
/// offset in that file, and `place` the part of the file in words, such as `key "general.name"`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    /// There is no such file.
    #[error("{file}: no such file")]
    NotFound { file: String },

    /// One file of a split model is not there.
    #[error(
        "{file}: no such file; the model is split and needs all of its {count} parts in one folder, this is part {part}"
    )]
    PartNotFound { file: String, part: u32, count: u32 },

    /// The path names a directory.
    #[error("{file} is a directory, expected a GGUF file")]
    Directory { file: String },

    /// The file holds no bytes.
    #[error("{file} is empty, expected a GGUF file; download it again")]
    Empty { file: String },

    /// The operating system refused.
    #[error("cannot {action} {file}: {source}")]
    Io { file: String, action: &'static str, source: io::Error },

    /// The first bytes are not `GGUF`.
    #[error("{file} is not a GGUF file: it starts with \"{start}\"{hint}, expected \"GGUF\"")]
    NotGguf { file: String, start: String, hint: &'static str },

    /// Numbers are stored most significant byte first.
    #[error(
        "{file} is a big-endian GGUF file, only little-endian ones are supported; convert it again without --bigendian"
    )]
    BigEndian { file: String },

    /// A GGUF version this reader does not know.
    #[error(
        "{file} has GGUF version {found}, expected 2 or 3; convert the model again with a current converter"
    )]
    Version { file: String, found: u32 },

    /// The file ends before something it declares.
    #[error(
        "{file} is cut short or damaged: {place} at byte {at} needs at least {missing} more bytes than the file's {file_len}; download it again"
    )]
    Truncated { file: String, place: String, at: u64, missing: u64, file_len: u64 },

    /// Something has a value the format does not allow.
    #[error("{file} is damaged: {place} at byte {at}: {problem}")]
    Invalid { file: String, place: String, at: u64, problem: String },

    /// More of something than any model has; a limit that keeps memory bounded.
    #[error("{file}: {place} at byte {at}: {count} {what}, at most {limit} are supported")]
    TooMany { file: String, place: String, at: u64, what: &'static str, count: u64, limit: u64 },

    /// Two keys or two tensors have the same name.
    #[error("{file} is damaged: {place} at byte {at} is there twice")]
    Duplicate { file: String, place: String, at: u64 },

    /// The weights of a tensor are stored in a way the engine does not run.
    #[error(
        "{file}: {place} at byte {at} has type {found}, which is not supported; get the model in another quantization, such as Q4_K_M or Q8_0"
    )]
    UnsupportedFormat { file: String, place: String, at: u64, found: String },

    /// A key that is needed is not there.
    #[error("{file}: key \"{key}\" is missing, expected {expected}")]
    MissingKey { file: String, key: String, expected: &'static str },

    /// A key has another type than the one needed, or its value does not fit.
    #[error("{file}: key \"{key}\" at byte {at} is {found}, expected {expected}")]
    WrongType { file: String, key: String, at: u64, found: String, expected: &'static str },

    /// The parts of a split model do not belong together.
    #[error("{file}: {problem}")]
    Split { file: String, problem: String },

    /// What should be written would not be a valid file.
    #[error("cannot write {file}: {place}: {problem}")]
    Unwritable { file: String, place: String, problem: String },
}

impl Error {
    /// Whether the file (or one part of it) is not there at all, as against there but unusable.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound { .. } | Error::PartNotFound { .. })
    }
}

/// A part of a file, named cheaply while reading and turned into words only for an error.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    Header,
    /// A key whose name is not known yet, counted from 0.
    KeyNumber(u64),
    Key(&'a str),
    /// A tensor whose name is not known yet, counted from 0.
    TensorNumber(u64),
    Tensor(&'a str),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Header => f.write_str("the header"),
            Place::KeyNumber(i) => write!(f, "key number {i}"),
            Place::Key(name) => write!(f, "key \"{}\"", excerpt(name.as_bytes(), 80)),
            Place::TensorNumber(i) => write!(f, "tensor number {i}"),
            Place::Tensor(name) => write!(f, "tensor \"{}\"", excerpt(name.as_bytes(), 80)),
        }
    }
}

/// The first `limit` bytes or fewer, as printable text on one line.
pub(crate) fn excerpt(bytes: &[u8], limit: usize) -> String {
    let mut end = bytes.len().min(limit);
    // Not in the middle of a character: at most three bytes back.
    while end > limit.saturating_sub(3) && bytes.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
        end -= 1;
    }
    let mut text = String::new();
    for chunk in bytes[..end].utf8_chunks() {
        for c in chunk.valid().chars() {
            // The text is shown between double quotes, where single ones need no escape.
            if c == '\'' { text.push(c) } else { text.extend(c.escape_debug()) }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    if bytes.len() > limit {
        text.push('…');
    }
    text
}
