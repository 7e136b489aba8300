//! Mapping a file into memory: the only `unsafe` of this crate.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use cchaha_plan::{Bytes, Store};
use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

use crate::Error;

/// A multiple of the page sizes in use (4, 16 and 64 KiB).
const PAGE: usize = 64 << 10;

/// A file's bytes, read by the operating system as they are touched.
///
/// The file must not be changed while it is mapped; replacing it by renaming another over it, as
/// [`write`](crate::write()) does, is fine.
pub(crate) fn map(path: &Path) -> Result<Bytes, Error> {
    let file = || path.display().to_string();
    let failed = |action, source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::NotFound { file: file() },
        io::ErrorKind::IsADirectory => Error::Directory { file: file() },
        _ => Error::Io { file: file(), action, source },
    };

    // Asked before opening, so that a named pipe gives an error and not a wait for its other end.
    let kind = std::fs::metadata(path).map_err(|e| failed("open", e))?;
    if kind.is_dir() {
        return Err(Error::Directory { file: file() });
    }
    if !kind.is_file() {
        return Err(failed("open", io::Error::other("it is no regular file, which mapping needs")));
    }
    let handle = File::open(path).map_err(|e| failed("open", e))?;
    if handle.metadata().map_err(|e| failed("read", e))?.len() == 0 {
        return Err(Error::Empty { file: file() });
    }

    // SAFETY: the map is private to this process's reads and is only ever seen as `&[u8]`, for which every bit
    // pattern is valid; its length is fixed when it is made. What no program can rule out is another process
    // that writes to the file or cuts it while it is mapped. Then the bytes may change between two reads (all
    // offsets used later were taken from checked copies, so no access leaves the map), or the system ends the
    // process with SIGBUS. Every engine that maps weights shares that condition, and the docs state it.
    let map = unsafe { Mmap::map(&handle) }.map_err(|e| failed("map", e))?;
    // Pages of 2 MiB, where the file system has them and the file is not in memory yet. Measured (ext4, Linux 6.18, 2-core AMD EPYC
    // Zen 4): two threads read 1.19 times as many bytes a second as from pages of 4 KiB, one thread 1.4 times. It is only advice:
    // where it is not taken, nothing changes.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(Bytes::new(Arc::new(Mapped(map))))
}

struct Mapped(Mmap);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Store for Mapped {
    fn release(&self, range: Range<usize>) {
        // Whole pages only: what stands beside the range is still in use.
        let (start, end) = (range.start.next_multiple_of(PAGE), range.end / PAGE * PAGE);
        #[cfg(unix)]
        if start < end {
            // SAFETY: the map is of a file and never written, so a page that is dropped comes back from the file as it was. It is only
            // advice: where it fails, the pages stay.
            let _ = unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) };
        }
        #[cfg(not(unix))]
        let _ = (start, end);
    }
}
