//! Falcon's words: punctuation runs apart, then GPT-2's words, then digits apart in groups of three.

use super::super::unicode::{PUNCTUATION, Unit};
use super::{Scan, run, word_or_skip};

/// `[\p{P}$+<=>^`|~]+`
pub(super) fn punctuation(text: &[u8]) -> Scan {
    word_or_skip(text, run(text, |unit| is_punctuation(unit, b"$+<=>^`|~")))
}

/// `[\p{P}$+<=>^|~]+`, the rule for files that name none.
pub(super) fn default_punctuation(text: &[u8]) -> Scan {
    word_or_skip(text, run(text, |unit| is_punctuation(unit, b"$+<=>^|~")))
}

fn is_punctuation(unit: Unit, symbols: &[u8]) -> bool {
    unit.is(PUNCTUATION) || symbols.iter().any(|&symbol| unit.code == u32::from(symbol))
}

/// Runs of digits, seen in GPT-2's printable alphabet: there the bytes of `²³¹¼½¾` in Latin-1 are numbers, also
/// inside of a longer character. So the published tokenizer does, and a word may end within a character.
pub(super) fn digits(text: &[u8]) -> Scan {
    let is_digit = |byte: &&u8| byte.is_ascii_digit() || matches!(byte, 0xB2 | 0xB3 | 0xB9 | 0xBC..=0xBE);
    match text.iter().take_while(is_digit).count() {
        0 => Scan::Skip(1),
        len => Scan::Word(len),
    }
}

/// `[0-9][0-9][0-9]`
pub(super) fn three_digits(text: &[u8]) -> Scan {
    match text {
        [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', ..] => Scan::Word(3),
        _ => Scan::Skip(1),
    }
}
