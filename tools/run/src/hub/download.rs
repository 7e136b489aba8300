//! One file: fetched into `blobs/SHA256.part`, resumed where a connection was cut, checked, and only then given its
//! name. Two programs at once do not disturb each other: the second waits.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use ureq::http::StatusCode;

use super::cache::RepoCache;
use super::client::{Client, RemoteFile};
use crate::exit::{Failure, Result};
use crate::interrupt::Stoppable;
use crate::output::{Progress, Unit, progress_in};

/// Connections in a row that may bring nothing.
const FRUITLESS: u32 = 5;
/// Times a file may arrive complete and wrong.
const WRONG: u32 = 2;
const BUFFER_BYTES: usize = 1 << 18;

/// The file's place in the cache, where it lies complete afterwards.
pub(super) fn fetch(
    client: &Client,
    cache: &RepoCache,
    repo: &str,
    commit: &str,
    file: &RemoteFile,
) -> Result<PathBuf> {
    let blob = cache.blob(&file.sha256);
    let part = blob.with_extension("part");
    let failed = |error: io::Error| Failure::other(format!("{}: {error}", part.display()));
    let folder = part.parent().expect("invariant: a blob lies in a folder");
    std::fs::create_dir_all(folder).map_err(failed)?;
    let lock = cache.lock(&file.sha256)?;
    if std::fs::metadata(&blob).is_ok_and(|found| found.len() == file.size) {
        return Ok(blob);
    }
    let stop = Stoppable::begin();
    for round in 1.. {
        transfer(client, repo, commit, file, &part, &stop)?;
        let found = hash(&part, file, &stop)?;
        if found == file.sha256 {
            break;
        }
        // A resumed file may have begun with another version's bytes; a fresh one tells.
        std::fs::remove_file(&part).map_err(failed)?;
        if round == WRONG {
            return Err(Failure::other(format!(
                "{} arrived with the hash {found}, expected {}, {WRONG} times; the server or something on the way changes it",
                file.name, file.sha256
            )));
        }
        tracing::warn!("{} did not arrive as it was sent; once more", file.name);
    }
    std::fs::rename(&part, &blob).map_err(failed)?;
    drop(lock);
    Ok(blob)
}

/// Brings `part` to its full length.
fn transfer(
    client: &Client,
    repo: &str,
    commit: &str,
    file: &RemoteFile,
    part: &Path,
    stop: &Stoppable,
) -> Result {
    let failed = |error: io::Error| Failure::other(format!("{}: {error}", part.display()));
    let mut out = OpenOptions::new().create(true).truncate(false).write(true).open(part).map_err(failed)?;
    let mut have = out.seek(SeekFrom::End(0)).map_err(failed)?;
    let mut progress = progress_in(Unit::Bytes, &file.name);
    let mut fruitless = 0;
    loop {
        if have > file.size {
            restart(&mut out).map_err(failed)?;
            have = 0;
        }
        if have == file.size {
            return out.sync_all().map_err(failed);
        }
        let answer = client.open(repo, commit, &file.name, have)?;
        let before = have;
        let resumed = answer.status == StatusCode::PARTIAL_CONTENT && answer.range == Some((have, file.size));
        let problem = if have > 0 && !resumed && answer.status != StatusCode::OK {
            restart(&mut out).map_err(failed)?;
            have = 0;
            format!("the server cannot go on at byte {before}")
        } else {
            if have > 0 && !resumed {
                // All of it comes again.
                restart(&mut out).map_err(failed)?;
                have = 0;
            }
            match copy(answer.body, &mut out, &mut have, file.size, &mut progress, stop) {
                Ok(()) if have > file.size => {
                    return Err(Failure::other(format!(
                        "{} is longer than the {} bytes the hub says it has",
                        file.name, file.size
                    )));
                }
                Ok(()) => format!("the connection ended at byte {have} of {}", file.size),
                Err(Broken::Out(error)) => return Err(failed(error)),
                Err(Broken::Stopped) => return Err(Failure::interrupted()),
                Err(Broken::In(error)) => error.to_string(),
            }
        };
        if have == file.size {
            continue;
        }
        fruitless = if have > before { 0 } else { fruitless + 1 };
        if fruitless == FRUITLESS {
            return Err(Failure::other(format!(
                "{}: {problem}, {FRUITLESS} times without a byte; what is here is kept, try again",
                file.name
            )));
        }
        tracing::info!("{}: {problem}; going on", file.name);
        if fruitless > 0 {
            std::thread::sleep(Client::wait(fruitless));
        }
    }
}

fn restart(out: &mut File) -> io::Result<()> {
    out.set_len(0)?;
    out.rewind()
}

enum Broken {
    /// The connection.
    In(io::Error),
    /// The disk.
    Out(io::Error),
    Stopped,
}

/// Until the body ends, or holds more than is left.
fn copy(
    mut body: impl Read,
    out: &mut File,
    have: &mut u64,
    size: u64,
    progress: &mut Progress,
    stop: &Stoppable,
) -> std::result::Result<(), Broken> {
    let mut buffer = vec![0; BUFFER_BYTES];
    while *have <= size {
        if stop.requested() {
            return Err(Broken::Stopped);
        }
        let n = match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Broken::In(error)),
        };
        out.write_all(&buffer[..n]).map_err(Broken::Out)?;
        *have += n as u64;
        progress.at(*have as usize, size as usize);
    }
    Ok(())
}

/// SHA-256 in hexadecimal digits.
fn hash(path: &Path, file: &RemoteFile, stop: &Stoppable) -> Result<String> {
    let failed = |error: io::Error| Failure::other(format!("{}: {error}", path.display()));
    let mut input = File::open(path).map_err(failed)?;
    let mut progress = progress_in(Unit::Bytes, format!("checking {}", file.name));
    let (mut sum, mut buffer, mut done) = (Sha256::new(), vec![0; BUFFER_BYTES], 0);
    loop {
        if stop.requested() {
            return Err(Failure::interrupted());
        }
        match input.read(&mut buffer).map_err(failed)? {
            0 => break,
            n => {
                sum.update(&buffer[..n]);
                done += n;
                progress.at(done, file.size as usize);
            }
        }
    }
    Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
