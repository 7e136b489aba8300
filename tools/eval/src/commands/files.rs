//! The source files that studies read.

use std::path::{Path, PathBuf};

use cchaha::code::{LANGUAGES, Language};
use cchaha_cli::exit::{Failure, Result};

/// A file, or its beginning.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) language: &'static Language,
    pub(crate) text: String,
}

impl Source {
    /// What its results are kept under.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.language.name, self.name)
    }
}

/// Files of known languages below `paths` in the order of their names, at most `per_language` of each, cut to
/// `max` bytes; those shorter than `min` are left out.
pub(crate) fn sources(
    paths: &[PathBuf],
    (min, max): (usize, usize),
    per_language: usize,
) -> Result<Vec<Source>> {
    let mut files = Vec::new();
    for path in paths {
        find(path, &mut files)?;
    }
    files.sort();
    let mut found: Vec<Source> = Vec::new();
    for path in files {
        let language = Language::of_path(&path);
        let known = found.iter().filter(|source| source.language.name == language.name).count();
        if !LANGUAGES.iter().any(|row| row.name == language.name) || known >= per_language {
            continue;
        }
        let Ok(mut text) = std::fs::read_to_string(&path) else { continue };
        if text.len() < min {
            continue;
        }
        text.truncate(text.floor_char_boundary(max));
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.push(Source { name, language, text });
    }
    if found.is_empty() {
        return Err(Failure::usage(format!("there is no source file of {min} bytes or more to read")));
    }
    Ok(found)
}

fn find(path: &Path, files: &mut Vec<PathBuf>) -> Result {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries = std::fs::read_dir(path);
    let entries =
        entries.map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    for entry in entries.flatten() {
        find(&entry.path(), files)?;
    }
    Ok(())
}
