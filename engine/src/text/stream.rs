//! Decoding as tokens come: characters may be spread over tokens, and none is ever given out in part.

use super::Tokenizer;
use super::hybrid;

/// Turns tokens into bytes, one after the other, for whoever keeps no [`Stream`]: the bytes of a token of a hybrid
/// vocabulary depend on the tokens before it.
#[derive(Clone, Debug, Default)]
pub struct Decoder(hybrid::Decoder);

impl Decoder {
    /// The bytes that `id` adds here; none for control tokens. Give it the tokens of one tokenizer only.
    pub fn push<'a>(&'a mut self, tokenizer: &'a Tokenizer, id: u32) -> &'a [u8] {
        let Some(hybrid) = tokenizer.hybrid() else { return tokenizer.token_bytes(id) };
        if tokenizer.is_control(id) {
            self.0.control(id, tokenizer.fim());
            return &[];
        }
        self.0.push(hybrid, id)
    }
}

/// Turns tokens into text, one after the other. See [`Tokenizer::stream`].
///
/// The pieces of text together are what [`String::from_utf8_lossy`] makes of all bytes: what cannot be part of
/// valid UTF-8 becomes U+FFFD.
#[derive(Clone)]
pub struct Stream<'a> {
    tokenizer: &'a Tokenizer,
    special: bool,
    /// Whether the next piece begins with a space that the text did not have.
    prefixed: bool,
    /// The indentation so far, on which line breaks of a hybrid vocabulary depend.
    decoder: Decoder,
    /// The first bytes of a character whose last ones have not come yet.
    pending: Vec<u8>,
    /// What the last call gave.
    text: String,
}

impl<'a> Stream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, special: bool, from_start: bool) -> Stream<'a> {
        let prefixed = from_start && tokenizer.add_space_prefix();
        let decoder = Decoder::default();
        Stream { tokenizer, special, prefixed, decoder, pending: Vec::new(), text: String::new() }
    }

    /// The text that `id` completes; empty while a character is incomplete.
    pub fn push(&mut self, id: u32) -> &str {
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(self.bytes_of(id));
        self.pending = pending;
        self.text.clear();
        let mut rest = &self.pending[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    self.text.push_str(valid);
                    self.pending.clear();
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    self.text.push_str(&String::from_utf8_lossy(valid));
                    let Some(invalid) = error.error_len() else {
                        self.pending = after.to_vec();
                        break;
                    };
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[invalid..];
                }
            }
        }
        &self.text
    }

    /// What is left at the end: U+FFFD if a character never got its last bytes, else nothing.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        self.text.push_str(&String::from_utf8_lossy(&self.pending));
        self.pending.clear();
        &self.text
    }

    /// The bytes that `id` adds here, before they become text.
    pub fn bytes_of(&mut self, id: u32) -> &[u8] {
        let piece = self.tokenizer.piece(id, self.special);
        if self.tokenizer.hybrid().is_some() {
            let bytes = self.decoder.push(self.tokenizer, id);
            return if self.tokenizer.is_control(id) { piece } else { bytes };
        }
        if self.tokenizer.is_control(id) {
            // Text after a control token is encoded as text at a start is.
            self.prefixed = self.tokenizer.add_space_prefix();
            return piece;
        }
        match std::mem::take(&mut self.prefixed) {
            true => piece.strip_prefix(b" ").unwrap_or(piece),
            false => piece,
        }
    }
}
