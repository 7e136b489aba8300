//! GPT-2's words (Radford et al. 2019): contractions, then letters, numbers or the rest with the space before.

use super::super::unicode::{LETTER, NUMBER, SPACE, Unit, first};
use super::{Scan, run, spaces};

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
pub(super) fn word(text: &[u8]) -> Scan {
    let skip = usize::from(text[0] == b' ');
    let Some(unit) = first(&text[skip..]).filter(|unit| !unit.is(SPACE)) else {
        return Scan::Word(spaces(text));
    };
    if let Some(len) = contraction(text) {
        return Scan::Word(len);
    }
    let alike: fn(Unit) -> bool = match unit.class {
        LETTER => |unit| unit.is(LETTER),
        NUMBER => |unit| unit.is(NUMBER),
        _ => |unit| !unit.is(SPACE | LETTER | NUMBER),
    };
    Scan::Word(skip + run(&text[skip..], alike))
}

/// `'s|'t|'re|'ve|'m|'ll|'d`
fn contraction(text: &[u8]) -> Option<usize> {
    match text {
        [b'\'', b's' | b't' | b'm' | b'd', ..] => Some(2),
        [b'\'', b'r' | b'v', b'e', ..] | [b'\'', b'l', b'l', ..] => Some(3),
        _ => None,
    }
}
