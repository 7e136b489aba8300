//! JSON files of a checkpoint, read with a bound on their size, and objects whose readers name file and key.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::exit::{Failure, Result};
use crate::hf::damaged;

/// The longest of all but the tokenizer's files; published ones have a few hundred kilobytes.
const MAX_BYTES: u64 = 32 << 20;

/// The bytes of a file in the checkpoint, or `None` where it is not there.
pub(super) fn read(path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>> {
    let failed = |error: std::io::Error| damaged(path, format_args!("cannot be read: {error}"));
    let found = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(failed)?,
    };
    if !found.is_file() {
        return Err(damaged(path, "is no regular file"));
    }
    if found.len() > max_bytes {
        return Err(damaged(path, format_args!("has {} bytes, expected at most {max_bytes}", found.len())));
    }
    std::fs::read(path).map(Some).map_err(failed)
}

/// The value a JSON file holds, or `None` where there is no such file.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, max_bytes: u64) -> Result<Option<T>> {
    let Some(bytes) = read(path, max_bytes)? else { return Ok(None) };
    let value = serde_json::from_slice(&bytes);
    value.map(Some).map_err(|error| damaged(path, format_args!("is not what was expected: {error}")))
}

/// A JSON object with where it came from. A key whose value is `null` counts as absent.
#[derive(Clone, Debug, Default)]
pub(super) struct Object {
    file: String,
    /// Keys that lead to it, each followed by a dot.
    path: String,
    map: Map<String, Value>,
}

impl Object {
    /// The object a file holds, or an empty one where there is no such file.
    pub(super) fn open(path: &Path) -> Result<Object> {
        let map = parse(path, MAX_BYTES)?.unwrap_or_default();
        Ok(Object { file: path.display().to_string(), path: String::new(), map })
    }

    /// Whether it has no keys at all.
    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Keys and values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.map.iter()
    }

    fn read<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.error(key, format_args!("is {}, expected {expected}", excerpt(value)))),
        }
    }

    /// An integer that a GGUF count can hold.
    pub(super) fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.read(key, "an integer from 0 to 4294967295", |value| value.as_u64()?.try_into().ok())
    }

    /// A finite number that `f32` can hold.
    pub(super) fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.read(key, "a number", |value| Some(value.as_f64()? as f32).filter(|value| value.is_finite()))
    }

    /// A yes or no.
    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// A text.
    pub(super) fn str(&self, key: &str) -> Result<Option<&str>> {
        self.read(key, "a string", Value::as_str)
    }

    /// A list.
    pub(super) fn array(&self, key: &str) -> Result<Option<&Vec<Value>>> {
        self.read(key, "a list", Value::as_array)
    }

    /// An object inside this one.
    pub(super) fn object(&self, key: &str) -> Result<Option<Object>> {
        let map = self.read(key, "an object", Value::as_object)?;
        let path = format!("{}{key}.", self.path);
        Ok(map.map(|map| Object { file: self.file.clone(), path, map: map.clone() }))
    }

    /// An error about a key.
    pub(super) fn error(&self, key: &str, problem: impl std::fmt::Display) -> Failure {
        Failure::new(cchaha::ErrorKind::Model, format!("{}: \"{}{key}\" {problem}", self.file, self.path))
    }

    /// The error for a key that must be there.
    pub(super) fn missing(&self, key: &str) -> Failure {
        self.error(key, "is missing; get the model again")
    }
}

/// A value for an error message, shortened.
pub(super) fn excerpt(value: &Value) -> String {
    const MAX_CHARS: usize = 300;
    let text = value.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
