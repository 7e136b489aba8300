//! The values of metadata keys.

use std::fmt;

use cchaha_plan::Bytes;

use crate::error::excerpt;

/// The value of one metadata key.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Str(String),
    Array(Array),
}

/// A list of values of one type.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    /// Byte strings: pieces of a vocabulary need not be UTF-8.
    Strings(Strings),
    /// Lists inside a list, each with a type of its own.
    Arrays(Vec<Array>),
}

/// A list of byte strings, kept where they lie in the file; eight bytes of memory each.
#[derive(Clone)]
pub struct Strings {
    /// The list as stored: for each string a `u64` length, then its bytes.
    stored: Bytes,
    /// Where in `stored` each string's length starts.
    starts: Vec<usize>,
}

/// Bytes of the length in front of each stored string.
const LENGTH_BYTES: usize = 8;

impl Strings {
    /// `starts` are the offsets in `stored` at which each entry's length begins, the first 0, without gaps.
    pub(crate) fn from_stored(stored: Bytes, starts: Vec<usize>) -> Strings {
        Strings { stored, starts }
    }

    /// How many strings.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The bytes of string `i`, or `None` past the end of the list.
    pub fn get(&self, i: usize) -> Option<&[u8]> {
        let start = self.starts.get(i)? + LENGTH_BYTES;
        let end = self.starts.get(i + 1).copied().unwrap_or(self.stored.len());
        Some(&self.stored.as_slice()[start..end])
    }

    /// All strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.get(i).expect("invariant: i < len"))
    }

    /// The list as a file stores it, without type and count.
    pub(crate) fn stored(&self) -> &[u8] {
        self.stored.as_slice()
    }
}

impl<S: AsRef<[u8]>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Strings {
        let mut stored = Vec::new();
        let mut starts = Vec::new();
        for string in strings {
            starts.push(stored.len());
            stored.extend_from_slice(&(string.as_ref().len() as u64).to_le_bytes());
            stored.extend_from_slice(string.as_ref());
        }
        Strings { stored: stored.into(), starts }
    }
}

impl PartialEq for Strings {
    fn eq(&self, other: &Strings) -> bool {
        self.starts == other.starts && self.stored() == other.stored()
    }
}

impl fmt::Debug for Strings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|s| excerpt(s, s.len()))).finish()
    }
}

impl Value {
    /// The type in words, for example `u32` or `an array of 3 strings`.
    pub fn type_name(&self) -> String {
        match self {
            Value::U8(_) => "u8".into(),
            Value::I8(_) => "i8".into(),
            Value::U16(_) => "u16".into(),
            Value::I16(_) => "i16".into(),
            Value::U32(_) => "u32".into(),
            Value::I32(_) => "i32".into(),
            Value::U64(_) => "u64".into(),
            Value::I64(_) => "i64".into(),
            Value::F32(_) => "f32".into(),
            Value::F64(_) => "f64".into(),
            Value::Bool(_) => "bool".into(),
            Value::Str(_) => "string".into(),
            Value::Array(array) => format!("an array of {} {}", array.len(), array.element_name()),
        }
    }

    /// This value as an integer of any size, where it is an integer.
    pub(crate) fn as_integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(v) => v.into(),
            Value::I8(v) => v.into(),
            Value::U16(v) => v.into(),
            Value::I16(v) => v.into(),
            Value::U32(v) => v.into(),
            Value::I32(v) => v.into(),
            Value::U64(v) => v.into(),
            Value::I64(v) => v.into(),
            _ => return None,
        })
    }
}

impl Array {
    /// How many elements.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(v) => v.len(),
            Array::I8(v) => v.len(),
            Array::U16(v) => v.len(),
            Array::I16(v) => v.len(),
            Array::U32(v) => v.len(),
            Array::I32(v) => v.len(),
            Array::U64(v) => v.len(),
            Array::I64(v) => v.len(),
            Array::F32(v) => v.len(),
            Array::F64(v) => v.len(),
            Array::Bool(v) => v.len(),
            Array::Strings(v) => v.len(),
            Array::Arrays(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the elements, in words.
    pub fn element_name(&self) -> &'static str {
        match self {
            Array::U8(_) => "u8",
            Array::I8(_) => "i8",
            Array::U16(_) => "u16",
            Array::I16(_) => "i16",
            Array::U32(_) => "u32",
            Array::I32(_) => "i32",
            Array::U64(_) => "u64",
            Array::I64(_) => "i64",
            Array::F32(_) => "f32",
            Array::F64(_) => "f64",
            Array::Bool(_) => "bool",
            Array::Strings(_) => "strings",
            Array::Arrays(_) => "arrays",
        }
    }
}

/// Elements and bytes of text that the short form of a value shows.
const SHORT_ELEMENTS: usize = 8;
const SHORT_TEXT_BYTES: usize = 120;

/// Long arrays and texts are abbreviated; the alternate form `{:#}` shows all.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::U8(v) => v.fmt(f),
            Value::I8(v) => v.fmt(f),
            Value::U16(v) => v.fmt(f),
            Value::I16(v) => v.fmt(f),
            Value::U32(v) => v.fmt(f),
            Value::I32(v) => v.fmt(f),
            Value::U64(v) => v.fmt(f),
            Value::I64(v) => v.fmt(f),
            Value::F32(v) => write!(f, "{v:?}"),
            Value::F64(v) => write!(f, "{v:?}"),
            Value::Bool(v) => v.fmt(f),
            Value::Str(v) => quoted(v.as_bytes(), f),
            Value::Array(v) => v.fmt(f),
        }
    }
}

/// Long arrays are abbreviated; the alternate form `{:#}` shows all.
impl fmt::Display for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Array::U8(v) => list(v, f, |v, f| v.fmt(f)),
            Array::I8(v) => list(v, f, |v, f| v.fmt(f)),
            Array::U16(v) => list(v, f, |v, f| v.fmt(f)),
            Array::I16(v) => list(v, f, |v, f| v.fmt(f)),
            Array::U32(v) => list(v, f, |v, f| v.fmt(f)),
            Array::I32(v) => list(v, f, |v, f| v.fmt(f)),
            Array::U64(v) => list(v, f, |v, f| v.fmt(f)),
            Array::I64(v) => list(v, f, |v, f| v.fmt(f)),
            Array::F32(v) => list(v, f, |v, f| write!(f, "{v:?}")),
            Array::F64(v) => list(v, f, |v, f| write!(f, "{v:?}")),
            Array::Bool(v) => list(v, f, |v, f| v.fmt(f)),
            Array::Strings(v) => list(v.iter(), f, quoted),
            Array::Arrays(v) => list(v, f, |v, f| v.fmt(f)),
        }
    }
}

/// `[a, b, c]`, or the first few and `… 151936 in all]`.
fn list<T>(
    items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    f: &mut fmt::Formatter<'_>,
    show: impl Fn(T, &mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    let items = items.into_iter();
    let len = items.len();
    let shown = if f.alternate() { len } else { SHORT_ELEMENTS };
    f.write_str("[")?;
    for (i, item) in items.take(shown).enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        show(item, f)?;
    }
    if len > shown {
        write!(f, ", … {len} in all")?;
    }
    f.write_str("]")
}

fn quoted(text: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let limit = if f.alternate() { text.len() } else { SHORT_TEXT_BYTES };
    write!(f, "\"{}\"", excerpt(text, limit))
}

macro_rules! from {
    ($($source:ty => $value:expr),* $(,)?) => {$(
        impl From<$source> for Value {
            fn from(v: $source) -> Value {
                #[allow(clippy::redundant_closure_call)]
                ($value)(v)
            }
        }
    )*};
}

from! {
    u8 => Value::U8, i8 => Value::I8, u16 => Value::U16, i16 => Value::I16, u32 => Value::U32, i32 => Value::I32,
    u64 => Value::U64, i64 => Value::I64, f32 => Value::F32, f64 => Value::F64, bool => Value::Bool,
    String => Value::Str, &str => |v: &str| Value::Str(v.to_owned()), Array => Value::Array,
    Strings => |v| Value::Array(Array::Strings(v)),
    Vec<u32> => |v| Value::Array(Array::U32(v)), Vec<i32> => |v| Value::Array(Array::I32(v)),
    Vec<f32> => |v| Value::Array(Array::F32(v)), Vec<bool> => |v| Value::Array(Array::Bool(v)),
}
