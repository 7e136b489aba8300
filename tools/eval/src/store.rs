//! Results of a study: one JSON object a line, appended as they come, so that what was done stays done.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
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

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::other(format!("cannot {what} {}: {error}", path.display()))
}

impl Store {
    /// Opens or begins a study with these settings; a folder of another study is refused.
    pub(crate) fn open(folder: &Path, settings: &Value) -> Result<Store> {
        fs::create_dir_all(folder).map_err(|error| failed("make", folder, &error))?;
        let path = folder.join("settings.json");
        match fs::read_to_string(&path) {
            Ok(text) if serde_json::from_str::<Value>(&text).ok().as_ref() != Some(settings) => {
                return Err(Failure::usage(format!(
                    "{} holds results with other settings; give another --out, or remove it",
                    folder.display()
                )));
            }
            Ok(_) => {}
            Err(_) => {
                let text = format!("{settings:#}\n");
                fs::write(&path, text).map_err(|error| failed("write", &path, &error))?;
            }
        }
        let path = folder.join("results.jsonl");
        let mut rows = HashMap::new();
        let mut whole = 0;
        if let Ok(file) = File::open(&path) {
            for line in BufReader::new(file).lines() {
                let line = line.map_err(|error| failed("read", &path, &error))?;
                // The last line may have been cut when the program was.
                let Ok(row) = serde_json::from_str::<Value>(&line) else { break };
                whole += line.len() as u64 + 1;
                if let Some(key) = row["key"].as_str() {
                    rows.insert(key.to_owned(), row);
                }
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|error| failed("open", &path, &error))?;
        file.set_len(whole).map_err(|error| failed("write", &path, &error))?;
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
        writeln!(self.file, "{row}").map_err(|error| failed("write", &path, &error))?;
        self.rows.insert(key.to_owned(), row);
        Ok(())
    }

    /// Writes a file beside the results.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(|error| failed("write", &path, &error))
    }
}
