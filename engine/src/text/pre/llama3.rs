//! The words of Llama 3 and, with single digits, of Qwen 2: a letter run takes one character that is not a
//! letter with it, numbers come in short groups, symbols take the line ends that follow.

use super::super::unicode::{LETTER, NUMBER, SPACE, Unit, first};
use super::{Scan, run, spaces};

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,DIGITS}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
pub(super) fn word<const DIGITS: usize>(text: &[u8]) -> Scan {
    Scan::Word(word_len::<DIGITS>(text))
}

fn word_len<const DIGITS: usize>(text: &[u8]) -> usize {
    let letters = |at: usize| at + run(&text[at..], |unit| unit.is(LETTER));
    let symbols = |at: usize| {
        let end = at + run(&text[at..], |unit| !unit.is(SPACE | LETTER | NUMBER));
        if end > at { end + run(&text[end..], Unit::is_newline) } else { at }
    };
    let Some(unit) = first(text) else { return 0 };
    let len = usize::from(unit.len);
    match unit.class {
        LETTER => letters(len),
        NUMBER => numbers(text, DIGITS),
        SPACE => {
            let word = if unit.is_newline() { len } else { letters(len) };
            if word > len {
                return word;
            }
            if unit.code == u32::from(b' ') && symbols(1) > 1 {
                return symbols(1);
            }
            match last_newline(text) {
                0 => spaces(text),
                end => end,
            }
        }
        _ => {
            if let Some(end) = contraction(text) {
                return end;
            }
            match letters(len) {
                end if end > len => end,
                _ => symbols(0),
            }
        }
    }
}

/// Length of up to `most` numbers at the start of `text`.
fn numbers(text: &[u8], most: usize) -> usize {
    let mut at = 0;
    for _ in 0..most {
        let Some(unit) = first(&text[at..]).filter(|unit| unit.is(NUMBER)) else { break };
        at += usize::from(unit.len);
    }
    at
}

/// `\s*[\r\n]+`: where the last line end in the run of spaces at the start of `text` ends, 0 if it has none.
fn last_newline(text: &[u8]) -> usize {
    let (mut end, mut at) = (0, 0);
    while let Some(unit) = first(&text[at..]).filter(|unit| unit.is(SPACE)) {
        at += usize::from(unit.len);
        if unit.is_newline() {
            end = at;
        }
    }
    end
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)`. The long s, U+017F, is an `s` in other case; no other letter has one outside
/// of ASCII.
fn contraction(text: &[u8]) -> Option<usize> {
    let [b'\'', rest @ ..] = text else { return None };
    let lower = |i: usize| rest.get(i).map(u8::to_ascii_lowercase);
    match (lower(0)?, lower(1)) {
        (b's' | b't' | b'm' | b'd', _) => Some(2),
        (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) => Some(3),
        _ if rest.starts_with("\u{17F}".as_bytes()) => Some(3),
        _ => None,
    }
}
