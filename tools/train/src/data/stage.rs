//! Stages of training. A stage is a row: its name, and how it makes pieces of a document. What comes later fits the same row:
//! instruction tuning makes pieces whose prompts are not learned from ([`Tokens::learned`]), reinforcement learning makes
//! pieces of what the model wrote.

use cchaha::code::{Language, PLAIN};
use cchaha::places;
use cchaha::text::Tokenizer;

use super::fim;
use super::store::Tokens;
use crate::corpus::Document;
use crate::rng::Rng;

/// What makes pieces of a document: `(tokenizer, document, tokens of a sequence, numbers of the document's own)`.
type Pieces = fn(&Tokenizer, &Document, usize, &mut Rng) -> Vec<Tokens>;

/// A stage of training.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// As in the command.
    pub name: &'static str,
    /// Makes pieces of a document.
    pub pieces: Pieces,
}

/// All of them, in the order a model goes through them.
pub const STAGES: [Stage; 2] =
    [Stage { name: "pretrain", pieces: whole }, Stage { name: "code", pieces: fim::halves }];

/// The document as it is.
fn whole(tokenizer: &Tokenizer, document: &Document, _: usize, rng: &mut Rng) -> Vec<Tokens> {
    vec![read(tokenizer, &document.language, encode(tokenizer, &document.text, rng), false)]
}

/// Tokens of a text that was now and then stopped at and gone on with, as prompts are: anywhere, and half of the times
/// behind a line. A text read in one go would never show a model what follows a token that ends there.
pub(super) fn encode(tokenizer: &Tokenizer, text: &str, rng: &mut Rng) -> Vec<u32> {
    let boundary = |at: usize| text.ceil_char_boundary(at.min(text.len()));
    let mut cuts: Vec<usize> = (0..text.len() / BYTES_PER_CUT)
        .map(|_| {
            let at = boundary(rng.below(text.len()));
            match text[at..].find('\n') {
                Some(line) if rng.unit() < 0.5 => at + line + 1,
                _ => at,
            }
        })
        .collect();
    cuts.sort_unstable();
    tokenizer.encode_cut(text, &cuts)
}

/// About how often [`encode`] stops.
const BYTES_PER_CUT: usize = 1500;

/// A document's tokens with its beginning and its end, and what the causal reading says of each. `whole` pieces are not cut. Pins are
/// those of the finished text: a header is one from its first token on, which matters only to headers longer than the window.
pub(super) fn read(tokenizer: &Tokenizer, language: &str, ids: Vec<u32>, whole: bool) -> Tokens {
    let start = tokenizer.bos().or(tokenizer.eos());
    let mut tokens: Vec<u32> = start.into_iter().collect();
    tokens.extend(ids);
    tokens.extend(tokenizer.eos());
    let mut stream = tokenizer.stream(false);
    let mut text = Vec::new();
    let ends: Vec<usize> = tokens
        .iter()
        .map(|&id| {
            text.extend_from_slice(stream.bytes_of(id));
            text.len()
        })
        .collect();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let pieces = starts.zip(&ends).map(|(start, &end)| &text[start..end]);
    let places = places(Language::named(language).unwrap_or(&PLAIN), pieces);
    Tokens {
        scopes: places.iter().map(|place| place.scope as u32).collect(),
        pinned: places.iter().map(|place| place.pinned).collect(),
        learned: vec![true; tokens.len()],
        bytes: text.len(),
        whole,
        tokens,
    }
}
