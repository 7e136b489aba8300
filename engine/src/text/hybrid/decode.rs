//! Tokens back to bytes: line breaks are relative to the indentation so far.

use super::Hybrid;
use super::indent::Indent;
use crate::text::FimTokens;

/// What is known where a text stands, and where the hole in it is: the marks of fill in the middle leave the text before
/// the hole and come back to it, other control tokens begin a new text.
#[derive(Clone, Debug, Default)]
pub(in crate::text) struct Place<T> {
    pub(in crate::text) now: T,
    hole: Option<T>,
}

impl<T: Default> Place<T> {
    /// A control token comes.
    pub(in crate::text) fn control(&mut self, id: u32, fim: &FimTokens) {
        let id = Some(id);
        if id == fim.suffix {
            self.hole = Some(std::mem::take(&mut self.now));
        } else if id == fim.middle {
            self.now = self.hole.take().unwrap_or_default();
        } else {
            *self = Place::default();
        }
    }
}

/// Where decoding stands.
#[derive(Clone, Debug, Default)]
pub(in crate::text) struct Decoder {
    place: Place<Indent>,
    bytes: Vec<u8>,
}

impl Decoder {
    /// A control token comes.
    pub(in crate::text) fn control(&mut self, id: u32, fim: &FimTokens) {
        self.place.control(id, fim);
    }

    /// The bytes of a token here.
    pub(in crate::text) fn push(&mut self, hybrid: &Hybrid, id: u32) -> &[u8] {
        let Decoder { place, bytes } = self;
        bytes.clear();
        hybrid.read(id, |item| {
            let from = bytes.len();
            match item {
                Ok(some) => bytes.extend_from_slice(some),
                Err(line_break) => place.now.expand(line_break, bytes),
            }
            place.now.feed(&bytes[from..]);
        });
        bytes
    }
}
