//! Character classes of the pre-tokenizers' regular expressions: `\p{L}`, `\p{N}`, `\p{P}` and `\s`.

use super::unicode_table::RANGES;

/// `\p{L}`: letters of any script.
pub(super) const LETTER: u8 = 1;
/// `\p{N}`: digits, letter numbers, fractions.
pub(super) const NUMBER: u8 = 2;
/// `\p{P}`: punctuation (not symbols such as `+`, `<` or `$`).
pub(super) const PUNCTUATION: u8 = 4;
/// `\s`: the White_Space property.
pub(super) const SPACE: u8 = 8;

/// One unit of text: a character, or a single byte that is not part of valid UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// The code point; [`Unit::INVALID`] for a stray byte.
    pub(super) code: u32,
    /// At most one of the class bits: the classes are disjoint, and symbols, marks and stray bytes have none.
    pub(super) class: u8,
    /// Length in bytes, 1 to 4.
    pub(super) len: u8,
}

impl Unit {
    /// Above every code point.
    pub(super) const INVALID: u32 = u32::MAX;

    pub(super) fn is(self, classes: u8) -> bool {
        self.class & classes != 0
    }

    pub(super) fn is_newline(self) -> bool {
        self.code == u32::from(b'\r') || self.code == u32::from(b'\n')
    }
}

/// The unit at the start of `text`, or `None` at its end.
#[inline]
pub(super) fn first(text: &[u8]) -> Option<Unit> {
    let &byte = text.first()?;
    if byte < 0x80 {
        return Some(Unit { code: byte.into(), class: LOW[usize::from(byte)], len: 1 });
    }
    Some(first_multibyte(text))
}

fn first_multibyte(text: &[u8]) -> Unit {
    let len = utf8_len(text);
    if len == 0 {
        return Unit { code: Unit::INVALID, class: 0, len: 1 };
    }
    let lead = u32::from(text[0]) & (0x7F >> len);
    let code = text[1..len].iter().fold(lead, |code, &byte| code << 6 | u32::from(byte) & 0x3F);
    Unit { code, class: class(code), len: len as u8 }
}

/// Length of the valid UTF-8 sequence at the start of `text`; 0 where there is none.
///
/// Table 3-7 of the Unicode standard: only the second byte has a range that depends on the first.
pub(super) fn utf8_len(text: &[u8]) -> usize {
    let Some(&lead) = text.first() else { return 0 };
    let (len, second) = match lead {
        0x00..=0x7F => return 1,
        0xC2..=0xDF => (2, 0x80..=0xBF),
        0xE0 => (3, 0xA0..=0xBF),
        0xED => (3, 0x80..=0x9F),
        0xE1..=0xEF => (3, 0x80..=0xBF),
        0xF0 => (4, 0x90..=0xBF),
        0xF1..=0xF3 => (4, 0x80..=0xBF),
        0xF4 => (4, 0x80..=0x8F),
        _ => return 0,
    };
    let valid = text.len() >= len
        && second.contains(&text[1])
        && text[2..len].iter().all(|byte| (0x80..=0xBF).contains(byte));
    if valid { len } else { 0 }
}

/// Class bit of a code point; 0 for symbols, marks, controls and unassigned ones.
fn class(code: u32) -> u8 {
    if let Some(&class) = LOW.get(code as usize) {
        return class;
    }
    let after = RANGES.partition_point(|&(first, _, _)| first <= code);
    match after.checked_sub(1).map(|i| RANGES[i]) {
        Some((_, last, class)) if code <= last => class,
        _ => 0,
    }
}

/// Classes of the code points that most text is made of, those of one or two bytes, without a search.
static LOW: [u8; 0x800] = {
    let mut table = [0; 0x800];
    let mut range = 0;
    while RANGES[range].0 < 0x800 {
        let (first, last, class) = RANGES[range];
        let mut code = first;
        while code <= last && code < 0x800 {
            table[code as usize] = class;
            code += 1;
        }
        range += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_ascend_and_do_not_touch_surrogates() {
        for pair in RANGES.windows(2) {
            assert!(pair[0].0 <= pair[0].1 && pair[0].1 < pair[1].0, "{pair:x?}");
        }
        assert!(RANGES.iter().all(|&(first, last, _)| last < 0xD800 || first > 0xDFFF));
    }

    /// Rust's own tables are of another Unicode version, so only what has been stable for long is compared.
    #[test]
    fn classes_agree_with_the_standard_library() {
        for c in (0..0x250).chain(0x4E00..0x9FA6).chain(0x3041..0x3097).filter_map(char::from_u32) {
            let class = class(c as u32);
            assert_eq!(class == SPACE, c.is_whitespace(), "{c:?}");
            assert_eq!(class == NUMBER, c.is_numeric(), "{c:?}");
            assert_eq!(class == LETTER, c.is_alphabetic(), "{c:?}");
        }
        for c in (0..0x11_0000).filter_map(char::from_u32) {
            assert_eq!(class(c as u32) == SPACE, c.is_whitespace(), "{c:?}");
        }
        assert!(
            (0x21..0x7F).all(|c: u8| !c.is_ascii_punctuation() || matches!(class(c.into()), 0 | PUNCTUATION))
        );
    }

    #[test]
    fn units_decode_as_the_standard_library_does() {
        for c in (0..0x11_0000).filter_map(char::from_u32) {
            let mut buffer = [0; 4];
            let text = c.encode_utf8(&mut buffer).as_bytes();
            let unit = first(text).expect("not empty");
            assert_eq!((unit.code, usize::from(unit.len)), (c as u32, c.len_utf8()));
        }
        // Every two-byte start, against the standard library's validation.
        for a in 0..=255_u8 {
            for b in 0..=255_u8 {
                for tail in [&[][..], &[0x80], &[0x80, 0x80], &[0xBF, 0x41]] {
                    let text = [&[a, b], tail].concat();
                    let valid =
                        (1..=text.len()).find(|&n| std::str::from_utf8(&text[..n]).is_ok()).unwrap_or(0);
                    assert_eq!(utf8_len(&text), valid, "{text:x?}");
                }
            }
        }
    }
}
