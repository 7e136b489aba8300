//! Where the result goes: what is refused before anything is written, and what an older result leaves behind.

use std::path::{Path, PathBuf};

use cchaha_cli::output::bytes;

use crate::exit::{Failure, Result};
use crate::source::Source;

/// Refuses targets that would cost something. With `split` the target may be a set of parts.
///
/// # Errors
/// Where the target is the source or a folder, or it exists and `force` is not given.
pub(crate) fn check(source: &dyn Source, target: &Path, split: bool, force: bool) -> Result {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let parts = if split { parts(target) } else { Vec::new() };
    let existing: Vec<PathBuf> =
        std::iter::once(target.to_owned()).chain(parts).filter(|path| path.exists()).collect();
    if let Some(path) =
        existing.iter().find(|path| source.files().iter().any(|file| real(file) == real(path)))
    {
        return Err(Failure::usage(format!(
            "{} is the input itself; give another name for the output",
            path.display()
        )));
    }
    if target.is_dir() {
        return Err(Failure::usage(format!(
            "{} is a folder, expected a file name for the output",
            target.display()
        )));
    }
    match existing.first() {
        Some(path) if !force => Err(Failure::usage(format!(
            "{} exists; give another name, or --force to overwrite it",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// The files of a model in `count` parts.
pub(crate) fn paths(target: &Path, count: usize) -> Vec<PathBuf> {
    if count == 1 {
        return vec![target.to_owned()];
    }
    let stem = stem(target);
    (1..=count).map(|part| target.with_file_name(format!("{stem}-{part:05}-of-{count:05}.gguf"))).collect()
}

/// Removes the parts of an older split of that name that are not among `written`: with those of two sets in one folder
/// nobody knows which belong together. What cannot be removed is left.
pub(crate) fn remove_older_parts(target: &Path, written: &[PathBuf]) {
    for path in parts(target).into_iter().filter(|path| !written.contains(path)) {
        let _ = std::fs::remove_file(path);
    }
}

/// The parts of any split of this name that are there.
fn parts(target: &Path) -> Vec<PathBuf> {
    let folder = folder(target);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let stem = stem(target);
    let number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    let ours = |name: &str| {
        let numbers = name.strip_prefix(stem.as_str()).and_then(|rest| rest.strip_prefix('-'));
        let numbers = numbers.and_then(|rest| rest.strip_suffix(".gguf")?.split_once("-of-"));
        numbers.is_some_and(|(part, count)| number(part) && number(count))
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut parts: Vec<PathBuf> = names
        .filter(|name| name.to_str().is_some_and(ours))
        .map(|name| target.with_file_name(name))
        .collect();
    parts.sort();
    parts
}

fn stem(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(".gguf").unwrap_or(&name).to_owned()
}

fn folder(target: &Path) -> &Path {
    target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Refuses to begin where the disk has no room for `needed` bytes. An old file keeps its place until the new one is
/// complete, so it gives none.
///
/// # Errors
/// Where there is less; a system that does not say is believed to have enough.
pub(crate) fn check_room(target: &Path, needed: u64) -> Result {
    match room(folder(target)) {
        Some(room) if room < needed => Err(Failure::other(format!(
            "{} takes {}, and its disk has room for {}; free some, or give a place on another disk",
            target.display(),
            bytes(needed),
            bytes(room)
        ))),
        _ => Ok(()),
    }
}

/// Bytes that may still be written to a folder.
#[cfg(unix)]
fn room(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(not(unix))]
fn room(_folder: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_as_they_are_read() {
        assert_eq!(paths(Path::new("a/b.gguf"), 1), [Path::new("a/b.gguf")]);
        assert_eq!(paths(Path::new("a/b.gguf"), 2)[1], Path::new("a/b-00002-of-00002.gguf"));
    }

    #[test]
    fn older_parts_go_and_others_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let others = ["m.gguf", "m-1-of-00003.gguf", "mm-00001-of-00003.gguf", "m-00001-of-00003.txt"];
        let old = ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"];
        for name in others.iter().chain(&old).chain(&["m-00001-of-00002.gguf"]) {
            std::fs::write(at(name), "").expect("written");
        }
        remove_older_parts(&at("m.gguf"), &paths(&at("m.gguf"), 2));
        assert!(old.iter().all(|name| !at(name).exists()));
        assert!(others.iter().all(|name| at(name).exists()) && at("m-00001-of-00002.gguf").exists());
    }

    #[test]
    fn room_is_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(check_room(&folder.path().join("x"), 1).is_ok());
        #[cfg(unix)]
        assert!(check_room(&folder.path().join("x"), u64::MAX).is_err());
    }
}
