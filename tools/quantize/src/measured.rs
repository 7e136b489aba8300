//! What a size search has measured, kept in a file: a search that was cut short goes on where it was, and the next size of
//! the same model takes seconds.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use twox_hash::XxHash64;

use crate::evaluate::Windows;
use crate::exit::{Failure, Result};
use crate::source::SourceTensor;

/// Divergences by group, in nats, and where they are kept, if anywhere.
pub(crate) struct Measured {
    path: Option<PathBuf>,
    /// Of the model's tensors and the tokens it was measured on.
    identity: String,
    groups: BTreeMap<String, f64>,
}

impl Measured {
    /// What `path` holds, if it is there.
    ///
    /// # Errors
    /// Where it cannot be read, or was measured on another model or text.
    pub(crate) fn open(path: Option<&Path>, tensors: &[SourceTensor], windows: &Windows) -> Result<Measured> {
        let identity = identity(tensors, windows);
        let mut measured = Measured { path: path.map(Path::to_owned), identity, groups: BTreeMap::new() };
        let Some(path) = path.filter(|path| path.exists()) else { return Ok(measured) };
        let wrong = |what: &str| Failure::usage(format!("{} {what}", path.display()));
        let text = cchaha_cli::input::file(path)?;
        let other = "holds no measurements of a size search; give another name";
        let file: Value = serde_json::from_str(&text).map_err(|_| wrong(other))?;
        if file["identity"].as_str().ok_or_else(|| wrong(other))? != measured.identity {
            return Err(wrong("was measured on another model or another text; give another name"));
        }
        for (group, nats) in file["divergence"].as_object().ok_or_else(|| wrong(other))? {
            let nats = nats.as_f64().filter(|nats| *nats >= 0.0).ok_or_else(|| wrong(other))?;
            measured.groups.insert(group.clone(), nats);
        }
        Ok(measured)
    }

    /// The divergence of a group, where it is known.
    pub(crate) fn get(&self, group: &str) -> Option<f64> {
        self.groups.get(group).copied()
    }

    /// Remembers one more.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub(crate) fn put(&mut self, group: &str, nats: f64) -> Result {
        self.groups.insert(group.to_owned(), nats);
        let Some(path) = &self.path else { return Ok(()) };
        let text = json!({ "identity": self.identity, "divergence": self.groups }).to_string();
        // The old file stays until the new one is complete.
        let mut beside = path.clone().into_os_string();
        beside.push(".tmp");
        std::fs::write(&beside, text)
            .and_then(|()| std::fs::rename(&beside, path))
            .map_err(|error| Failure::other(format!("cannot write {}: {error}", path.display())))
    }
}

fn identity(tensors: &[SourceTensor], windows: &Windows) -> String {
    let mut hash = XxHash64::with_seed(0);
    for tensor in tensors {
        hash.write(tensor.name.as_bytes());
        tensor.dims.iter().for_each(|dim| hash.write_u64(*dim as u64));
    }
    for token in windows.tokens.iter().flatten() {
        hash.write_u32(*token);
    }
    format!("{:016x}", hash.finish())
}

#[cfg(test)]
mod tests {
    use cchaha::gguf::Dims;
    use cchaha::plan::Format;

    use super::*;

    #[test]
    fn what_was_measured_is_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("m.json");
        let dims = Dims::new(&[4, 2]).expect("dims");
        let tensors = [SourceTensor { name: "a".into(), dims, format: Format::F16 }];
        let windows = |token| Windows { tokens: vec![vec![1, token]], len: 2 };
        let open = |token| Measured::open(Some(&path), &tensors, &windows(token));
        let mut measured = open(2).expect("a new file");
        assert_eq!(measured.get("attn_q 0"), None);
        measured.put("attn_q 0", 0.25).expect("written");
        assert_eq!(open(2).expect("the same").get("attn_q 0"), Some(0.25));
        assert!(open(3).is_err(), "another text");
        for text in ["", "[]", r#"{"identity": 1}"#, r#"{"identity": "x", "divergence": {"a": -1}}"#] {
            std::fs::write(&path, text).expect("written");
            assert!(open(2).is_err(), "{text}");
        }
    }
}
