//! Text that comes in: from a flag, a file or stdin, and always checked to be UTF-8.

use std::io::{self, BufRead, IsTerminal, Read};
use std::path::Path;

use crate::exit::{Failure, Result};

/// A text that is required to be UTF-8; `name` says where it came from and `start` how many bytes came before it.
fn utf8(bytes: Vec<u8>, name: &str, start: usize) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes()[at];
        let offset = start + at;
        Failure::usage(format!(
            "{name} is not valid UTF-8: byte 0x{byte:02x} at offset {offset}; convert it to UTF-8 first"
        ))
    })
}

fn stdin_error(error: &io::Error) -> Failure {
    Failure::usage(format!("cannot read stdin: {error}"))
}

/// The whole of stdin.
fn stdin() -> Result<String> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes).map_err(|error| stdin_error(&error))?;
    utf8(bytes, "stdin", 0)
}

/// stdin line by line, without line ends.
#[derive(Debug, Default)]
pub struct StdinLines {
    /// Bytes of the lines so far.
    offset: usize,
}

impl StdinLines {
    /// From the next line on.
    pub fn new() -> StdinLines {
        StdinLines { offset: 0 }
    }
}

impl Iterator for StdinLines {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        let mut bytes = Vec::new();
        let start = self.offset;
        match io::stdin().lock().read_until(b'\n', &mut bytes) {
            Ok(0) => return None,
            Ok(n) => self.offset += n,
            Err(error) => return Some(Err(stdin_error(&error))),
        }
        let line = utf8(bytes, "stdin", start);
        Some(line.map(|mut line| {
            line.truncate(line.trim_end_matches(['\r', '\n']).len());
            line
        }))
    }
}

/// A text file; `-` is stdin.
pub fn file(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        return stdin();
    }
    let name = path.display();
    let bytes =
        std::fs::read(path).map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?;
    utf8(bytes, &name.to_string(), 0)
}

/// The text given by a flag, by a file, or else piped into stdin. `what` names it in the error, and how it can be given.
pub fn text(flag: Option<String>, path: Option<&Path>, (what, ways): (&str, &str)) -> Result<String> {
    match (flag, path) {
        (Some(text), _) => Ok(text),
        (None, Some(path)) => file(path),
        (None, None) if !io::stdin().is_terminal() => stdin(),
        (None, None) => Err(Failure::usage(format!("no {what}: give {ways}, or pipe it into stdin"))),
    }
}
