//! The hub's cache: blobs by their hash, and for each commit a folder of links to them. The layout is that of
//! huggingface_hub, so that other programs find what we fetch and we find what they did.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo};

use super::client::RemoteFile;
use crate::exit::{Failure, Result};

/// The deepest folder in a repository that is looked into.
const MAX_DEPTH: usize = 4;

/// The whole cache, where `HF_HOME` says.
pub(super) fn cache() -> Result<Cache> {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if let Some(hub) = std::env::var_os("HF_HUB_CACHE").filter(|value| !value.is_empty()) {
        return Ok(Cache::new(PathBuf::from(hub)));
    }
    if !is_set("HF_HOME") && std::env::home_dir().is_none() {
        return Err(Failure::other("there is no home folder to keep models in; set HF_HOME to a folder"));
    }
    Ok(if is_set("HF_HOME") { Cache::from_env() } else { Cache::default() })
}

/// One repository in the cache.
pub(crate) struct RepoCache {
    /// `OWNER/REPO`.
    pub(crate) repo: String,
    folder: PathBuf,
    locks: PathBuf,
    cache: hf_hub::CacheRepo,
}

/// A GGUF file in the cache.
#[derive(Clone, Debug)]
pub(crate) struct CachedFile {
    /// Its path in the repository.
    pub(crate) name: String,
    /// Its place in a commit's folder.
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
}

impl RepoCache {
    pub(crate) fn open(repo: &str) -> Result<RepoCache> {
        let (cache, model) = (cache()?, Repo::model(repo.to_owned()));
        let folder = cache.path().join(model.folder_name());
        let locks = cache.path().join(".locks").join(model.folder_name());
        Ok(RepoCache { repo: repo.to_owned(), folder, locks, cache: cache.repo(model) })
    }

    /// Every repository with a GGUF file.
    pub(crate) fn all() -> Result<Vec<RepoCache>> {
        let root = cache()?.path().clone();
        let mut repos = Vec::new();
        for name in children(&root)? {
            let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some((owner, repo)) = name.strip_prefix("models--").and_then(|name| name.split_once("--"))
            else {
                continue;
            };
            let repo = RepoCache::open(&format!("{owner}/{repo}"))?;
            if !repo.files()?.is_empty() {
                repos.push(repo);
            }
        }
        Ok(repos)
    }

    /// Complete GGUF files, of the newest commit first, each name once.
    pub(crate) fn files(&self) -> Result<Vec<CachedFile>> {
        let snapshots = self.folder.join("snapshots");
        let newest = fs::read_to_string(self.folder.join("refs/main")).unwrap_or_default();
        let mut commits = children(&snapshots)?;
        commits.sort_by_key(|commit| {
            commit.file_name().is_none_or(|name| name.to_string_lossy() != newest.trim())
        });
        let mut files = Vec::new();
        let mut seen = BTreeSet::new();
        for commit in commits {
            let mut found = Vec::new();
            walk(&commit, MAX_DEPTH, &mut found).map_err(|error| unreadable(&commit, &error))?;
            found.sort();
            for path in found {
                let name = path.strip_prefix(&commit).unwrap_or(&path);
                let name = name.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/");
                // A link whose blob is gone is no file.
                let Ok(size) = fs::metadata(&path).map(|found| found.len()) else { continue };
                if name.ends_with(".gguf") && seen.insert(name.clone()) {
                    files.push(CachedFile { name, path, size });
                }
            }
        }
        Ok(files)
    }

    /// Where the bytes with this hash are kept.
    pub(super) fn blob(&self, sha256: &str) -> PathBuf {
        self.folder.join("blobs").join(sha256)
    }

    /// Waits until no other program fetches the bytes with this hash. The lock's file stays: to remove it would let two
    /// programs hold locks of the same name.
    pub(super) fn lock(&self, sha256: &str) -> Result<fs::File> {
        let path = self.locks.join(format!("{sha256}.lock"));
        let lock = || {
            fs::create_dir_all(&self.locks)?;
            let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        lock().map_err(|error| unreadable(&path, &error))
    }

    /// Where a file of a commit is found.
    pub(super) fn path_of(&self, commit: &str, name: &str) -> PathBuf {
        self.cache.pointer_path(commit).join(name)
    }

    /// Gives a blob its name in a commit.
    pub(super) fn link(&self, commit: &str, file: &RemoteFile, blob: &Path) -> Result {
        let path = self.path_of(commit, &file.name);
        let failed = |error: io::Error| Failure::other(format!("{}: {error}", path.display()));
        fs::create_dir_all(path.parent().expect("invariant: it lies in the commit's folder"))
            .map_err(failed)?;
        let there = || fs::metadata(&path).is_ok_and(|found| found.len() == file.size);
        if there() {
            return Ok(());
        }
        if fs::symlink_metadata(&path).is_ok() {
            fs::remove_file(&path).map_err(failed)?;
        }
        // From the file's folder up to the repository's: snapshots, the commit, and the folders in the name.
        let up = "../".repeat(2 + file.name.matches('/').count());
        symlink(Path::new(&format!("{up}blobs/{}", file.sha256)), &path)
            .or_else(|_| fs::hard_link(blob, &path))
            // Another program may have linked it at the same moment.
            .or_else(|error| if there() { Ok(()) } else { Err(error) })
            .map_err(failed)
    }

    /// Remembers which commit the main branch is at.
    pub(super) fn set_main(&self, commit: &str) -> Result {
        self.cache.create_ref(commit).map_err(|error| unreadable(&self.folder, &error))
    }

    /// Removes these files from all commits, and all that nothing names any more. Gives the bytes that are free now.
    pub(crate) fn remove(&self, names: &[String]) -> Result<u64> {
        let failed = |error: io::Error| unreadable(&self.folder, &error);
        let size = |path: &Path| folder_bytes(path, MAX_DEPTH);
        let before = size(&self.folder);
        let mut kept = BTreeSet::new();
        for commit in children(&self.folder.join("snapshots"))? {
            let mut found = Vec::new();
            walk(&commit, MAX_DEPTH, &mut found).map_err(failed)?;
            for path in found {
                let name = path
                    .strip_prefix(&commit)
                    .unwrap_or(&path)
                    .to_string_lossy()
                    .replace(std::path::MAIN_SEPARATOR, "/");
                if names.contains(&name) {
                    fs::remove_file(&path).map_err(failed)?;
                } else if let Ok(target) = fs::read_link(&path) {
                    kept.extend(target.file_name().map(|name| name.to_os_string()));
                }
            }
        }
        if self.files()?.is_empty() && kept.is_empty() {
            fs::remove_dir_all(&self.folder).map_err(failed)?;
            return Ok(before);
        }
        for blob in children(&self.folder.join("blobs"))? {
            if blob.file_name().is_some_and(|name| !kept.contains(name)) {
                fs::remove_file(&blob).map_err(failed)?;
            }
        }
        Ok(before - size(&self.folder))
    }
}

#[cfg(unix)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(windows)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, path)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::other(format!("{}: {error}", path.display()))
}

/// What a folder holds; nothing where there is no such folder.
fn children(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        list => list.map_err(|error| unreadable(folder, &error))?,
    };
    let mut paths: Vec<PathBuf> = list.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.sort();
    Ok(paths)
}

/// All files under a folder, links to files among them.
fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            found.push(entry.path());
        } else if depth > 1 {
            walk(&entry.path(), depth - 1, found)?;
        }
    }
    Ok(())
}

/// Bytes of all files under a folder, links not followed.
fn folder_bytes(folder: &Path, depth: usize) -> u64 {
    let mut found = Vec::new();
    // What cannot be read counts as nothing.
    let _ = walk(folder, depth + 2, &mut found);
    let bytes = |path: &PathBuf| fs::symlink_metadata(path).map_or(0, |found| found.len());
    found.iter().map(bytes).sum()
}
