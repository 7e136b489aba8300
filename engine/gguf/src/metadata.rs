//! The keys and values of a model, with typed readers that name what is missing or wrong.

use std::borrow::Cow;
use std::sync::Arc;

use crate::Error;
use crate::error::excerpt;
use crate::index::NameIndex;
use crate::value::{Array, Strings, Value};

/// Keys and values in file order; no key is there twice.
///
/// The typed readers give `Ok(None)` where the key is absent and an error naming key, found and expected type
/// where it has another type or does not fit. Any integer type serves where an integer is asked for, and `f64`
/// where `f32` is. The `require_` readers make absence an error too.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// Name of the file, for errors.
    file: Arc<str>,
    entries: Vec<Entry>,
    index: NameIndex,
}

/// One key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) value: Value,
    /// Where the value starts in the file; 0 for one that was set.
    pub(crate) at: u64,
}

impl Default for Metadata {
    fn default() -> Metadata {
        Metadata::new()
    }
}

impl Metadata {
    /// No keys yet, for writing.
    pub fn new() -> Metadata {
        Metadata { file: "new metadata".into(), entries: Vec::new(), index: NameIndex::default() }
    }

    /// `Err` holds the first entry whose key was there before.
    pub(crate) fn from_entries(file: Arc<str>, entries: Vec<Entry>) -> Result<Metadata, Entry> {
        match NameIndex::build(entries.len(), |i| &entries[i].key) {
            Ok(index) => Ok(Metadata { file, entries, index }),
            Err(second) => Err(entries.into_iter().nth(second).expect("invariant: an index into the list")),
        }
    }

    fn find(&self, key: &str) -> Result<usize, usize> {
        self.index.find(key, |i| &self.entries[i].key)
    }

    /// Sets a key: in place where it exists, else at the end.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) -> &mut Metadata {
        let entry = Entry { key: key.into(), value: value.into(), at: 0 };
        match self.find(&entry.key) {
            Ok(i) => self.entries[i] = entry,
            Err(rank) => {
                self.index.insert(rank);
                self.entries.push(entry);
            }
        }
        self
    }

    /// How many keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.find(key).ok().map(|i| &self.entries[i].value)
    }

    /// All keys and values in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|entry| (entry.key.as_str(), &entry.value))
    }

    /// The value read by `read`, which gives `None` for a value that is not `expected`.
    fn read<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Ok(i) = self.find(key) else { return Ok(None) };
        let Entry { value, at, .. } = &self.entries[i];
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(Error::WrongType {
                file: self.file.to_string(),
                key: excerpt(key.as_bytes(), 80),
                at: *at,
                found: match value {
                    Value::Array(_) => value.type_name(),
                    _ => format!("{} {value}", value.type_name()),
                },
                expected,
            }),
        }
    }

    /// What the offset of every tensor's data is a multiple of: `general.alignment`, or 32 where it is absent.
    /// A power of two and, as the specification asks, at least 8, so that the data of a mapped tensor can be
    /// read as any number type.
    pub fn alignment(&self) -> Result<u32, Error> {
        let read =
            |v: &Value| v.as_integer()?.try_into().ok().filter(|v: &u32| v.is_power_of_two() && *v >= 8);
        Ok(self.read("general.alignment", "a power of two, at least 8", read)?.unwrap_or(32))
    }

    fn missing(&self, key: &str, expected: &'static str) -> Error {
        Error::MissingKey { file: self.file.to_string(), key: excerpt(key.as_bytes(), 80), expected }
    }
}

/// One typed reader and its `require_` twin for each line: names, result, what is expected in words, how to read.
macro_rules! readers {
    ($($name:ident, $require:ident -> $type:ty, $expected:literal, $read:expr;)*) => {
        impl Metadata {$(
            #[doc = concat!("The value of a key that holds ", $expected, ".")]
            pub fn $name(&self, key: &str) -> Result<Option<$type>, Error> {
                self.read(key, $expected, $read)
            }

            #[doc = concat!("The value of a key that must be there and hold ", $expected, ".")]
            pub fn $require(&self, key: &str) -> Result<$type, Error> {
                self.$name(key)?.ok_or_else(|| self.missing(key, $expected))
            }
        )*}
    };
}

readers! {
    str, require_str -> &str, "a string", |v| match v { Value::Str(v) => Some(v.as_str()), _ => None };
    bool, require_bool -> bool, "a bool", |v| match v { Value::Bool(v) => Some(*v), _ => None };
    u32, require_u32 -> u32, "an integer from 0 to 4294967295", |v| v.as_integer()?.try_into().ok();
    i32, require_i32 -> i32, "an integer from -2147483648 to 2147483647", |v| v.as_integer()?.try_into().ok();
    u64, require_u64 -> u64, "an integer of 0 or more", |v| v.as_integer()?.try_into().ok();
    usize, require_usize -> usize, "an integer of 0 or more", |v| v.as_integer()?.try_into().ok();
    f32, require_f32 -> f32, "a float", |v| match v {
        Value::F32(v) => Some(*v),
        Value::F64(v) => narrow(*v),
        _ => None,
    };
    strings, require_strings -> &Strings, "an array of strings", |v| match v {
        Value::Array(Array::Strings(v)) => Some(v),
        _ => None,
    };
    bools, require_bools -> &[bool], "an array of bools", |v| match v {
        Value::Array(Array::Bool(v)) => Some(v.as_slice()),
        _ => None,
    };
    u32s, require_u32s -> Cow<'_, [u32]>, "an array of integers from 0 to 4294967295", |v| match v {
        Value::Array(Array::U32(v)) => Some(Cow::Borrowed(v.as_slice())),
        Value::Array(v) => integers(v).map(Cow::Owned),
        _ => None,
    };
    i32s, require_i32s -> Cow<'_, [i32]>, "an array of integers from -2147483648 to 2147483647", |v| match v {
        Value::Array(Array::I32(v)) => Some(Cow::Borrowed(v.as_slice())),
        Value::Array(v) => integers(v).map(Cow::Owned),
        _ => None,
    };
    f32s, require_f32s -> Cow<'_, [f32]>, "an array of floats", |v| match v {
        Value::Array(Array::F32(v)) => Some(Cow::Borrowed(v.as_slice())),
        Value::Array(Array::F64(v)) => v.iter().map(|&v| narrow(v)).collect::<Option<_>>().map(Cow::Owned),
        _ => None,
    };
}

/// The nearest `f32`, unless that would turn a number into infinity.
fn narrow(value: f64) -> Option<f32> {
    let narrowed = value as f32;
    (narrowed.is_finite() || !value.is_finite()).then_some(narrowed)
}

/// All elements as `T`, where they are integers that fit.
fn integers<T: TryFrom<i128>>(array: &Array) -> Option<Vec<T>> {
    fn all<S: Copy + Into<i128>, T: TryFrom<i128>>(values: &[S]) -> Option<Vec<T>> {
        values.iter().map(|&v| T::try_from(v.into()).ok()).collect()
    }
    match array {
        Array::U8(v) => all(v),
        Array::I8(v) => all(v),
        Array::U16(v) => all(v),
        Array::I16(v) => all(v),
        Array::U32(v) => all(v),
        Array::I32(v) => all(v),
        Array::U64(v) => all(v),
        Array::I64(v) => all(v),
        _ => None,
    }
}
