//! Code in prose: what stands between the fences of Markdown is read as the language the opening fence names, the
//! rest as plain text (CommonMark 0.31, section 4.5; tildes and indented fences of lists are left out).

use super::languages::{Language, PLAIN};

/// Longest beginning of a line that is looked at: a fence and the name of a language.
const BEGINNING: usize = 32;

/// Follows the fences of a text.
#[derive(Clone, Debug)]
pub(super) struct Fences {
    line: [u8; BEGINNING],
    len: usize,
    inside: bool,
}

impl Fences {
    pub(super) fn new() -> Fences {
        Fences { line: [0; BEGINNING], len: 0, inside: false }
    }

    /// Reads one more byte; the language of what comes next, where this byte ends the line of a fence.
    #[inline]
    pub(super) fn push(&mut self, byte: u8) -> Option<&'static Language> {
        if byte != b'\n' {
            if self.len < BEGINNING {
                self.line[self.len] = byte;
                self.len += 1;
            }
            return None;
        }
        let line = self.line[..std::mem::take(&mut self.len)].trim_ascii();
        let info = line.strip_prefix(b"```")?;
        self.inside = !self.inside;
        let word = info.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'+').next();
        let named = word.and_then(|word| Language::named(std::str::from_utf8(word).ok()?));
        Some(named.filter(|_| self.inside).unwrap_or(&PLAIN))
    }
}
