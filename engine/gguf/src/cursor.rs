//! Reading forward through a file, every step checked against what is left of it.

use std::ops::Range;

use crate::Error;
use crate::error::Place;

/// A position in a file, and the name of what is being read there.
pub(crate) struct Cursor<'a> {
    file: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// What is being read, for errors.
    pub(crate) place: Place<'a>,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(file: &'a str, bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { file, bytes, at: 0, place: Place::Header }
    }

    /// The offset of the next byte.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: u64) -> Result<&'a [u8], Error> {
        self.need(n)?;
        let start = self.at;
        self.at += n as usize;
        Ok(&self.bytes[start..self.at])
    }

    /// An error unless `n` more bytes are left.
    fn need(&self, n: u64) -> Result<(), Error> {
        match n.checked_sub(self.left() as u64) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(Error::Truncated {
                file: self.file.to_owned(),
                place: self.place.to_string(),
                at: self.at as u64,
                missing,
                file_len: self.bytes.len() as u64,
            }),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let bytes = self.take(N as u64)?;
        Ok(bytes.try_into().expect("invariant: take gave N bytes"))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of things that take `min_bytes` each or more: checked against what is left of the file, so that
    /// memory for that many may be reserved.
    pub(crate) fn count(&mut self, min_bytes: u64) -> Result<usize, Error> {
        let count = self.u64()?;
        self.fits(count, min_bytes)?;
        Ok(count as usize)
    }

    /// An error unless `count` things of `min_bytes` each can be left.
    pub(crate) fn fits(&self, count: u64, min_bytes: u64) -> Result<(), Error> {
        self.need(count.saturating_mul(min_bytes))
    }

    /// A length and that many bytes.
    pub(crate) fn string(&mut self) -> Result<&'a [u8], Error> {
        let len = self.u64()?;
        self.take(len)
    }

    /// A string that must be UTF-8 of at most `limit` bytes.
    pub(crate) fn text(&mut self, limit: usize) -> Result<&'a str, Error> {
        let start = self.at;
        let bytes = self.string()?;
        if bytes.len() > limit {
            return Err(
                self.invalid(start, format!("a text of {} bytes, expected at most {limit}", bytes.len()))
            );
        }
        std::str::from_utf8(bytes).map_err(|e| {
            self.invalid(start, format!("the text is not valid UTF-8 from its byte {} on", e.valid_up_to()))
        })
    }

    /// What was read since `start`.
    pub(crate) fn since(&self, start: usize) -> Range<usize> {
        start..self.at
    }

    /// An error about the bytes at `at`.
    pub(crate) fn invalid(&self, at: usize, problem: impl Into<String>) -> Error {
        Error::Invalid {
            file: self.file.to_owned(),
            place: self.place.to_string(),
            at: at as u64,
            problem: problem.into(),
        }
    }

    /// An error unless `count` is at most `limit`.
    pub(crate) fn at_most(&self, limit: u64, count: u64, what: &'static str) -> Result<(), Error> {
        if count <= limit {
            return Ok(());
        }
        let (file, place) = (self.file.to_owned(), self.place.to_string());
        Err(Error::TooMany { file, place, at: self.at as u64, what, count, limit })
    }
}
