//! tokenizer.model: SentencePiece's own file, a protocol buffer (sentencepiece_model.proto).

use std::path::Path;

use super::{MAX_BYTES, Token, Vocab, kind};
use crate::exit::Result;
use crate::hf::damaged;
use crate::hf::json::read as read_file;

/// `TrainerSpec.ModelType.BPE`; where the file is silent it is UNIGRAM, 1.
const BPE: u64 = 2;

/// One field of a message.
enum Field<'a> {
    Number(u64),
    Bits32(u32),
    Bytes(&'a [u8]),
    Other,
}

/// Reads a message field by field.
struct Message<'a> {
    rest: &'a [u8],
}

impl<'a> Message<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(len.try_into().ok()?)?;
        self.rest = rest;
        Some(bytes)
    }

    /// The next field with its number; `Some(None)` at the end, `None` where the message is damaged.
    fn next(&mut self) -> Option<Option<(u64, Field<'a>)>> {
        if self.rest.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Number(self.varint()?),
            1 => self.take(8).map(|_| Field::Other)?,
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(len)?)
            }
            5 => Field::Bits32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some(Some((tag >> 3, field)))
    }
}

/// What the file says.
struct Model {
    pieces: Vec<Token>,
    model_type: u64,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
}

pub(super) fn read(path: &Path, rows: usize) -> Result<Vocab> {
    let Some(bytes) = read_file(path, MAX_BYTES)? else { return Err(damaged(path, "is missing")) };
    let Some(model) = parse(&bytes, rows) else {
        return Err(damaged(path, format_args!("is no SentencePiece model of at most {rows} tokens")));
    };
    if model.model_type != BPE {
        return Err(damaged(
            path,
            format_args!("is of type {}, supported is only {BPE}, BPE", model.model_type),
        ));
    }
    let mut vocab = Vocab::new("llama", "default", rows);
    for (slot, token) in vocab.tokens.iter_mut().zip(model.pieces) {
        *slot = Some(token);
    }
    vocab.adds.bos = Some(true);
    vocab.add_space_prefix = Some(model.add_dummy_prefix);
    vocab.remove_extra_whitespaces = model.remove_extra_whitespaces.then_some(true);
    Ok(vocab)
}

/// `ModelProto`: pieces, `TrainerSpec`, `NormalizerSpec`.
fn parse(bytes: &[u8], rows: usize) -> Option<Model> {
    let mut model =
        Model { pieces: Vec::new(), model_type: 1, add_dummy_prefix: true, remove_extra_whitespaces: true };
    let mut message = Message { rest: bytes };
    while let Some((number, field)) = message.next()? {
        let Field::Bytes(inner) = field else { continue };
        match number {
            1 if model.pieces.len() == rows => return None,
            1 => model.pieces.push(piece(inner)?),
            2 => each(inner, |number, value| {
                if number == 3 {
                    model.model_type = value;
                }
            })?,
            3 => each(inner, |number, value| match number {
                3 => model.add_dummy_prefix = value != 0,
                4 => model.remove_extra_whitespaces = value != 0,
                _ => {}
            })?,
            _ => {}
        }
    }
    (!model.pieces.is_empty()).then_some(model)
}

/// Calls `see` with every field that holds a number.
fn each(bytes: &[u8], mut see: impl FnMut(u64, u64)) -> Option<()> {
    let mut message = Message { rest: bytes };
    while let Some((number, field)) = message.next()? {
        if let Field::Number(value) = field {
            see(number, value);
        }
    }
    Some(())
}

/// `SentencePiece`: text, score and type, whose numbers GGUF took over.
fn piece(bytes: &[u8]) -> Option<Token> {
    let mut token = Token { text: String::new(), kind: kind::NORMAL, score: 0.0 };
    let mut message = Message { rest: bytes };
    while let Some(field) = message.next()? {
        match field {
            (1, Field::Bytes(text)) => token.text = std::str::from_utf8(text).ok()?.to_owned(),
            (2, Field::Bits32(bits)) => {
                token.score = Some(f32::from_bits(bits)).filter(|score| score.is_finite())?
            }
            (3, Field::Number(number)) => token.kind = i32::try_from(number).ok()?,
            _ => {}
        }
    }
    Some(token)
}
