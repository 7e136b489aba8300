//! Results of a study: one JSON object a line, appended as they come, so that what was done stays done.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cchaha_cli::exit::{Failure, Result};
use serde_json::{Value, json};

/// The folder of one study.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    file: File,
    rows: HashMap<String, Value>,
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::other(format!("cannot {what} {}: {error}", path.display()))
}

impl Store {
    /// Opens or begins a study with these settings; a folder with results of other settings is refused.
    pub(crate) fn open(folder: &Path, settings: &Value) -> Result<Store> {
        fs::create_dir_all(folder).map_err(|error| failed("make", folder, &error))?;
        let path = folder.join("results.jsonl");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed("read", &path, &error)),
        };
        let (rows, n_whole) = read_rows(&bytes, &path)?;
        agree(folder, settings, rows.is_empty())?;
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let mut file = file.map_err(|error| failed("open", &path, &error))?;
        file.set_len(n_whole as u64).map_err(|error| failed("write", &path, &error))?;
        // A last line can be whole but for its end.
        if bytes[..n_whole].last().is_some_and(|&byte| byte != b'\n') {
            file.write_all(b"\n").map_err(|error| failed("write", &path, &error))?;
        }
        Ok(Store { folder: folder.to_owned(), file, rows })
    }

    /// The result of this key, if it is there.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.rows.get(key)
    }

    /// Keeps a result.
    pub(crate) fn put(&mut self, key: &str, mut row: Value) -> Result {
        row["key"] = json!(key);
        let path = self.folder.join("results.jsonl");
        let line = format!("{row}\n");
        self.file.write_all(line.as_bytes()).map_err(|error| failed("write", &path, &error))?;
        self.rows.insert(key.to_owned(), row);
        Ok(())
    }

    /// Writes a file beside the results.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(|error| failed("write", &path, &error))
    }
}

/// The results by their keys, and how many bytes their lines take: a last line that was cut when the program was is left
/// out.
fn read_rows(bytes: &[u8], path: &Path) -> Result<(HashMap<String, Value>, usize)> {
    let mut rows = HashMap::new();
    let mut n_whole = 0;
    for (i, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let row = serde_json::from_slice::<Value>(line).ok();
        if row.is_none() && n_whole + line.len() == bytes.len() {
            break;
        }
        let keyed = row.and_then(|row| Some((row["key"].as_str()?.to_owned(), row)));
        let (key, row) = keyed.ok_or_else(|| {
            let name = path.display();
            Failure::model(format!("{name}, line {} is not a result; mend or remove that line", i + 1))
        })?;
        rows.insert(key, row);
        n_whole += line.len();
    }
    Ok((rows, n_whole))
}

/// Keeps the settings of a study that begins, and compares those of one that goes on.
fn agree(folder: &Path, settings: &Value, begins: bool) -> Result {
    let path = folder.join("settings.json");
    let text = format!("{settings:#}\n");
    if begins || !path.exists() {
        return fs::write(&path, text).map_err(|error| failed("write", &path, &error));
    }
    let there = fs::read_to_string(&path).map_err(|error| failed("read", &path, &error))?;
    let there: Value = serde_json::from_str(&there).map_err(|error| {
        Failure::model(format!("{}: {error}; mend it, or give another --out", path.display()))
    })?;
    // Read from text as well, so that numbers are rounded alike.
    let here: Value = serde_json::from_str(&text).map_err(Failure::other)?;
    match difference(&there, &here) {
        None => Ok(()),
        Some(difference) => Err(Failure::usage(format!(
            "{} holds results of another study: {difference}; give another --out, or remove it",
            folder.display()
        ))),
    }
}

/// The first setting that differs, with both values.
fn difference(there: &Value, here: &Value) -> Option<String> {
    let objects = [here, there].into_iter().filter_map(Value::as_object);
    let mut names = objects.flat_map(|object| object.keys());
    let name = names.find(|name| there.get(name.as_str()) != here.get(name.as_str()))?;
    let shown = |settings: &Value| {
        settings.get(name.as_str()).map_or_else(|| "not set".to_owned(), |value| value.to_string())
    };
    Some(format!("{name} is {} there and {} here", shown(there), shown(here)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that is not there yet.
    fn fresh(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("cchaha-study-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    fn open(folder: &Path, model: &str) -> Result<Store> {
        Store::open(folder, &json!({ "study": "test", "model": model }))
    }

    /// A study with two results: the path of their lines and what they are.
    fn study(folder: &Path) -> (PathBuf, String) {
        let mut store = open(folder, "a.gguf").unwrap();
        for key in ["one", "two"] {
            store.put(key, json!({ "n": key.len() })).unwrap();
        }
        let path = folder.join("results.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        (path, text)
    }

    #[test]
    fn a_study_goes_on_behind_a_torn_last_line() {
        let folder = fresh("torn");
        let (path, text) = study(&folder);
        for torn in ["{\"n\": 1, \"ke", "{\"n\":\n", ""] {
            fs::write(&path, format!("{text}{torn}")).unwrap();
            let store = open(&folder, "a.gguf").unwrap();
            assert!(store.get("one").is_some() && store.get("two").is_some(), "{torn:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text, "{torn:?}");
        }
        fs::write(&path, text.trim_end()).unwrap();
        assert!(open(&folder, "a.gguf").unwrap().get("two").is_some(), "only the line end was missing");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_bad_line_before_others_is_refused_and_stays() {
        let folder = fresh("bad");
        let (path, text) = study(&folder);
        for bad in ["{\"n\": 1, \"ke", "{\"n\": 1}", "", "7"] {
            let damaged = format!("{text}{bad}\n{text}");
            fs::write(&path, &damaged).unwrap();
            let failure = open(&folder, "a.gguf").expect_err("a bad line");
            let expected = "results.jsonl, line 3 is not a result; mend or remove that line";
            assert!(failure.message().ends_with(expected), "{}", failure.message());
            assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn only_a_folder_without_results_is_taken_over() {
        let folder = fresh("settings");
        open(&folder, "first.gguf").unwrap();
        fs::remove_file(folder.join("results.jsonl")).unwrap();
        open(&folder, "second.gguf").unwrap();
        let (path, text) = study(&folder);
        let failure = open(&folder, "b.gguf").expect_err("another model");
        let expected = "holds results of another study: model is \"a.gguf\" there and \"b.gguf\" here; \
                        give another --out, or remove it";
        assert!(failure.message().ends_with(expected), "{}", failure.message());
        let settings = json!({ "study": "test", "model": "a.gguf", "raw": true });
        let failure = Store::open(&folder, &settings).expect_err("another setting");
        assert!(failure.message().contains("raw is not set there and true here"), "{}", failure.message());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        fs::remove_dir_all(&folder).unwrap();
    }
}
