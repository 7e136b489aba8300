//! The source files that studies read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cchaha::code::{LANGUAGES, Language};
use cchaha_cli::exit::{Failure, Result};

/// A file, or its beginning.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its path from the folder it was found through, that folder's own name included.
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

/// Files of known languages below `paths` in the order of their names, cut to `max` bytes; those shorter than `min` are left
/// out. Of a language with more than `per_language` files, so many that are spread evenly over them.
pub(crate) fn sources(
    paths: &[PathBuf],
    (min, max): (usize, usize),
    per_language: usize,
) -> Result<Vec<Source>> {
    let mut files = Vec::new();
    for path in paths {
        find(path, path.parent().unwrap_or(path), &mut files)?;
    }
    files.sort();
    files.dedup();
    let mut found: Vec<Source> = Vec::new();
    for (name, path) in files {
        let language = Language::of_path(&path);
        if !LANGUAGES.iter().any(|row| row.name == language.name) {
            continue;
        }
        let Ok(mut text) = std::fs::read_to_string(&path) else { continue };
        if text.len() < min {
            continue;
        }
        text.truncate(text.floor_char_boundary(max));
        found.push(Source { name, language, text });
    }
    if found.is_empty() {
        return Err(Failure::usage(format!("there is no source file of {min} bytes or more to read")));
    }
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for source in &found {
        counts.entry(source.language.name).or_default().1 += 1;
    }
    found.retain(|source| {
        let (seen, all) = counts.get_mut(source.language.name).expect("invariant: counted above");
        let chosen = per_language.min(*all);
        *seen += 1;
        // Where the share of the chosen passes a whole number.
        *seen * chosen / *all > (*seen - 1) * chosen / *all
    });
    Ok(found)
}

/// Files below `path`, with their paths from `root`.
fn find(path: &Path, root: &Path, files: &mut Vec<(String, PathBuf)>) -> Result {
    if !path.is_dir() {
        let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/");
        files.push((name, path.to_owned()));
        return Ok(());
    }
    let entries = std::fs::read_dir(path);
    let entries =
        entries.map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    for entry in entries.flatten() {
        find(&entry.path(), root, files)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_name_stay_apart_and_few_are_spread_evenly() {
        let folder = tempfile::tempdir().unwrap();
        for (package, n) in [("a", 8), ("b", 4)] {
            for i in 0..n {
                let module = folder.path().join(format!("{package}/{i}"));
                std::fs::create_dir_all(&module).unwrap();
                std::fs::write(module.join("__init__.py"), format!("{package} = {i}\n")).unwrap();
            }
        }
        let paths = ["a", "b"].map(|package| folder.path().join(package));
        let names = |per_language| -> Vec<String> {
            let found = sources(&paths, (1, 100), per_language).unwrap();
            found.into_iter().map(|source| source.name).collect()
        };
        assert_eq!(names(usize::MAX).len(), 12);
        assert_eq!(names(3), ["a/3/__init__.py", "a/7/__init__.py", "b/3/__init__.py"]);
        assert!(sources(&paths, (100, 200), 3).is_err(), "none is that long");
    }
}
