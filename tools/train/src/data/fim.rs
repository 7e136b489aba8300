//! Fill in the middle (Bavarian et al. 2022, arXiv 2207.14255): half of the pieces of a document become prefix, suffix, middle, cut
//! at two random characters; the others stay as they are.

use cchaha::fim;
use cchaha::text::{Special, Tokenizer};

use super::stage::{encode, read};
use super::store::Tokens;
use crate::corpus::Document;
use crate::rng::Rng;

/// Part of the pieces that are transformed.
const PART: f64 = 0.5;

/// Pieces of whole lines that fit a sequence of `context` tokens, half of them transformed.
pub(super) fn halves(
    tokenizer: &Tokenizer,
    document: &Document,
    context: usize,
    rng: &mut Rng,
) -> Vec<Tokens> {
    let mut pieces = Vec::new();
    let mut rest = document.text.as_str();
    while !rest.is_empty() {
        // A guess that holds for most code, made smaller until it holds.
        let mut bytes = context * 4;
        let transformed = rng.unit() < PART;
        loop {
            let text = &rest[..cut(rest, bytes)];
            let ids = if transformed { middle(tokenizer, text, rng) } else { None };
            let ids = ids.unwrap_or_else(|| encode(tokenizer, text, rng));
            if ids.len() + 2 <= context || bytes <= 64 {
                pieces.push(read(tokenizer, &document.language, ids, true));
                rest = &rest[text.len()..];
                break;
            }
            bytes = bytes * context * 7 / (ids.len() * 8);
        }
    }
    pieces
}

/// Where to cut a text so that at most `bytes` are before it: behind a line if there is one, else at a character.
fn cut(text: &str, bytes: usize) -> usize {
    if text.len() <= bytes {
        return text.len();
    }
    let end = (0..=bytes).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    match text[..end].rfind('\n') {
        Some(line) => line + 1,
        None if end > 0 => end,
        None => text.chars().next().map_or(text.len(), char::len_utf8),
    }
}

/// Prefix, suffix, middle, with the marks of the vocabulary; nothing where it has none.
fn middle(tokenizer: &Tokenizer, text: &str, rng: &mut Rng) -> Option<Vec<u32>> {
    let boundary = |at: usize| (at..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    let mut cuts = [0, 0].map(|_| boundary(rng.below(text.len() + 1)));
    cuts.sort_unstable();
    let (prefix, rest) = text.split_at(cuts[0]);
    let (middle, suffix) = rest.split_at(cuts[1] - cuts[0]);
    let prompt = fim::prompt(tokenizer, None, prefix, suffix).ok()?;
    let begins = tokenizer.bos().is_some() && tokenizer.add_bos();
    let mut ids = prompt.tokens[usize::from(begins)..].to_vec();
    ids.extend(tokenizer.encode_after(prefix, middle, Special::Plain));
    Some(ids)
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn cuts_are_behind_lines_where_there_are_lines_and_never_inside_characters() {
        assert_eq!(cut("ab\ncd\nef", 100), 8);
        assert_eq!(cut("ab\ncd\nef", 7), 6);
        assert_eq!(cut("abcdef", 4), 4);
        assert_eq!(cut("ääää", 3), 2);
        assert_eq!(cut("ä", 1), 2);
    }
}
