//! The source files that studies read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cchaha::code::{LANGUAGES, Language};
use cchaha_cli::exit::{Failure, Result};
use cchaha_cli::output::plural;

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
/// out. What `paths` names itself must be there and be readable. Of a language with more than `per_language` files, so many
/// that are spread evenly over them.
pub(crate) fn sources(
    paths: &[PathBuf],
    (min, max): (usize, usize),
    per_language: usize,
) -> Result<Vec<Source>> {
    let mut files = Vec::new();
    for path in paths {
        check(path)?;
        find(path, path.parent().unwrap_or(path), &mut files)?;
    }
    files.sort();
    files.dedup();
    let mut found: Vec<Source> = Vec::new();
    for (name, path) in files {
        let language = Language::of_path(&path);
        if !is_known(language) {
            continue;
        }
        let mut text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if paths.contains(&path) => {
                return Err(Failure::usage(format!("cannot read {}: {error}", path.display())));
            }
            Err(_) => continue,
        };
        if text.len() < min {
            continue;
        }
        text.truncate(text.floor_char_boundary(max));
        found.push(Source { name, language, text });
    }
    if found.is_empty() {
        return Err(Failure::usage(format!(
            "there is no source file of {} or more to read; known languages are {}",
            plural(min, "byte"),
            known_languages()
        )));
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

fn is_known(language: &Language) -> bool {
    LANGUAGES.iter().any(|row| row.name == language.name)
}

fn known_languages() -> String {
    let names: Vec<&str> = LANGUAGES.iter().map(|row| row.name).collect();
    names.join(", ")
}

/// Refuses a path that is not there, and a file that is not of a known language.
fn check(path: &Path) -> Result {
    let name = path.display();
    let about = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::usage(format!("{name}: no such file or folder")),
        _ => Failure::usage(format!("cannot read {name}: {error}")),
    })?;
    if about.is_dir() || is_known(Language::of_path(path)) {
        return Ok(());
    }
    Err(Failure::usage(format!("{name}: not a file of a known language; known are {}", known_languages())))
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
    #[test]
    fn what_is_named_must_be_there_and_be_source() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let (good, text) = (file("a.py", b"a = 1\n"), file("notes.txt", b"a note\n"));
        let refused = |path: &Path| -> String {
            let failure = sources(&[good.clone(), path.to_owned()], (1, 100), 9).expect_err("refused");
            failure.message().to_owned()
        };
        assert!(refused(&folder.path().join("nosuch")).ends_with("nosuch: no such file or folder"));
        assert!(refused(&text).contains("notes.txt: not a file of a known language; known are python,"));
        assert!(refused(&file("b.py", b"\xff\n")).contains("b.py"), "it is not UTF-8");
        let names: Vec<String> = sources(&[folder.path().to_owned()], (1, 100), 9)
            .unwrap()
            .into_iter()
            .map(|source| source.name)
            .collect();
        assert!(names.len() == 1 && names[0].ends_with("a.py"), "of a folder, the others are left out");
    }
}
