//! Training text: a folder with one file per split.
//!
//! A file is a list of documents, each a line of JSON (`language`, `package`, `path`, `bytes`) and then that many bytes
//! of UTF-8 text and a line end. Whole packages are held out, so no split knows a file of another's package.

pub mod fetch;
pub mod manifest;
pub mod select;

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Longest document a file may hold, in bytes: what is longer is no source text.
const MAX_BYTES: usize = 16 << 20;
/// Longest head line, in bytes.
const MAX_HEAD: u64 = 1 << 16;

/// A part of a corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Split {
    /// To learn from.
    Train,
    /// To measure with; never learned from.
    Heldout,
}

impl Split {
    /// Both.
    pub const ALL: [Split; 2] = [Split::Train, Split::Heldout];

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Heldout => "heldout",
        }
    }

    /// The file that holds it in a corpus folder.
    pub fn path(self, corpus: &Path) -> PathBuf {
        corpus.join(format!("{}.docs", self.name()))
    }
}

/// One source file of one package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// A name of `cchaha::code::LANGUAGES`, or `markdown`, `rst` and the like.
    pub language: String,
    /// `NAME-VERSION`.
    pub package: String,
    /// Its path in the package.
    pub path: String,
    /// Its text, lines ended by `\n`.
    pub text: String,
}

/// Why a corpus cannot be read.
#[derive(Debug)]
pub enum CorpusError {
    /// The file system said no.
    Io(PathBuf, io::Error),
    /// The file is not what [`write`] makes: what is wrong, and at which byte.
    Format(PathBuf, u64, String),
}

impl fmt::Display for CorpusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CorpusError::Io(path, error) => write!(f, "{}: {error}", path.display()),
            CorpusError::Format(path, at, problem) => {
                write!(
                    f,
                    "{}: at byte {at}, {problem}; make the corpus again with `train corpus`",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for CorpusError {}

#[derive(Serialize, Deserialize)]
struct Head {
    language: String,
    package: String,
    path: String,
    bytes: usize,
}

/// The documents of a split, in the order of the file, which is the same wherever the same manifest was fetched.
///
/// # Errors
/// Where the folder has no such split.
pub fn documents(corpus: &Path, split: Split) -> Result<Documents, CorpusError> {
    let path = split.path(corpus);
    match File::open(&path) {
        Ok(file) => {
            Ok(Documents { reader: BufReader::with_capacity(1 << 20, file), path, at: 0, done: false })
        }
        Err(error) => Err(CorpusError::Io(path, error)),
    }
}

/// See [`documents`]. Ends after the first error.
pub struct Documents {
    reader: BufReader<File>,
    path: PathBuf,
    at: u64,
    done: bool,
}

impl Documents {
    fn read(&mut self) -> Result<Option<Document>, CorpusError> {
        let wrong = |at, problem: &str| CorpusError::Format(self.path.clone(), at, problem.to_owned());
        let failed = |error| CorpusError::Io(self.path.clone(), error);
        let mut line = Vec::new();
        let n = (&mut self.reader).take(MAX_HEAD).read_until(b'\n', &mut line).map_err(failed)?;
        if n == 0 {
            return Ok(None);
        }
        let head: Head = serde_json::from_slice(&line).map_err(|_| {
            wrong(self.at, "a line of JSON with language, package, path and bytes was expected")
        })?;
        self.at += n as u64;
        if head.bytes > MAX_BYTES {
            return Err(wrong(self.at, "a document is longer than 16 MiB"));
        }
        let mut text = vec![0; head.bytes + 1];
        self.reader.read_exact(&mut text).map_err(|_| wrong(self.at, "the file ends inside a document"))?;
        if text.pop() != Some(b'\n') {
            return Err(wrong(self.at, "a document does not end where its head says"));
        }
        let text = String::from_utf8(text).map_err(|_| wrong(self.at, "a document is not UTF-8"))?;
        self.at += head.bytes as u64 + 1;
        Ok(Some(Document { language: head.language, package: head.package, path: head.path, text }))
    }
}

impl Iterator for Documents {
    type Item = Result<Document, CorpusError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let result = self.read().transpose();
        self.done = !matches!(result, Some(Ok(_)));
        result
    }
}

/// Appends one document to a split's file.
///
/// # Errors
/// What `out` says.
pub fn write(out: &mut impl Write, document: &Document) -> io::Result<()> {
    let Document { language, package, path, text } = document;
    let head =
        Head { language: language.clone(), package: package.clone(), path: path.clone(), bytes: text.len() };
    serde_json::to_writer(&mut *out, &head)?;
    out.write_all(b"\n")?;
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")
}
