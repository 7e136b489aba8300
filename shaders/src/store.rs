//! Compiled pipelines kept on disk, so that a driver compiles each kernel once and not at every start.
//!
//! A file is the XXH64 of the driver's data and then the data. One that is cut short or changed is ignored: the driver must only
//! see what it once gave.

use std::path::{Path, PathBuf};

use twox_hash::XxHash64;

/// The data in a file; `None` where there is none or it is not what was written.
pub(crate) fn load(path: &Path) -> Option<Vec<u8>> {
    let mut file = std::fs::read(path).ok()?;
    let intact = file.split_first_chunk::<8>().is_some_and(|(sum, data)| checksum(data) == *sum);
    if !intact {
        tracing::warn!("{} is damaged and is ignored; it will be written anew", path.display());
        return None;
    }
    file.drain(..8);
    Some(file)
}

/// Writes the data, whole or not at all. Where the folder cannot be written to, the next start compiles again.
pub(crate) fn save(path: &Path, data: &[u8]) {
    let bytes = [&checksum(data)[..], data].concat();
    if std::fs::read(path).is_ok_and(|kept| kept == bytes) {
        return;
    }
    if let Err(error) = replace(path, &bytes) {
        tracing::info!("compiled kernels are not kept: {}: {error}", path.display());
    }
}

/// Puts `bytes` in the place of a file in one step, so that nobody ever sees half of them.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let written = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, path));
    written.inspect_err(|_| {
        let _ = std::fs::remove_file(&part);
    })
}

fn checksum(data: &[u8]) -> [u8; 8] {
    XxHash64::oneshot(0, data).to_le_bytes()
}

/// The file for the pipelines of a device, whose key names maker and model.
pub(crate) fn path(folder: &Path, key: &str) -> PathBuf {
    folder.join(format!("{key}-{}.bin", env!("CARGO_PKG_VERSION")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_no_data() {
        let folder = std::env::temp_dir().join(format!("cchaha-store-{}", std::process::id()));
        let file = path(&folder, "key");
        assert_eq!(load(&file), None);
        save(&file, b"pipelines");
        assert_eq!(load(&file).as_deref(), Some(&b"pipelines"[..]));
        let whole = std::fs::read(&file).unwrap();
        for end in [0, 7, 8, whole.len() - 1] {
            std::fs::write(&file, &whole[..end]).unwrap();
            assert_eq!(load(&file), None, "{end} bytes of it");
        }
        for at in [0, 8, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&file, changed).unwrap();
            assert_eq!(load(&file), None, "byte {at} changed");
        }
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside the file");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
