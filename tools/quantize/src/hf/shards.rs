//! The tensors of a checkpoint: one safetensors file, or several with an index.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Component, Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata};

use super::damaged;
use super::json::Object;
use crate::exit::Result;
use crate::source::read_at;

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// The longest header read. One with the 56,000 tensors of the largest published mixtures has a tenth of that.
const MAX_HEADER_BYTES: u64 = 64 << 20;
/// Files open at once; the largest published checkpoints have some 200.
const MAX_FILES: usize = 1000;

/// All files with what lies where.
pub(super) struct Shards {
    paths: Vec<PathBuf>,
    files: Vec<File>,
    tensors: BTreeMap<String, Stored>,
}

/// Where a tensor lies; its bytes have been checked to be inside the file.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) file: usize,
    /// Bytes from the start of the file.
    pub(super) offset: u64,
    pub(super) dtype: Dtype,
    /// Rows first, as the format has it.
    pub(super) shape: Vec<usize>,
}

impl Shards {
    /// Reads the headers of all files in a folder.
    pub(super) fn open(folder: &Path) -> Result<Shards> {
        let index = Object::open(&folder.join(INDEX))?;
        let mut shards = Shards { paths: Vec::new(), files: Vec::new(), tensors: BTreeMap::new() };
        let Some(map) = index.object("weight_map")? else {
            if !index.is_empty() {
                return Err(index.missing("weight_map"));
            }
            let path = folder.join(SINGLE);
            if !path.exists() {
                let problem = format!("has neither {SINGLE} nor {INDEX}; only safetensors are read");
                return Err(damaged(folder, problem));
            }
            shards.add(path)?;
            return Ok(shards);
        };
        let mut names = BTreeSet::new();
        for (tensor, _) in map.iter() {
            let name = map.str(tensor)?.ok_or_else(|| map.missing(tensor))?;
            // A name that leads out of the folder is no file of this checkpoint.
            let mut parts = Path::new(name).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                return Err(map.error(
                    tensor,
                    format_args!("is {name:?}, expected the name of a file in the same folder"),
                ));
            }
            names.insert(name.to_owned());
            if names.len() > MAX_FILES {
                return Err(index.error("weight_map", format_args!("names more than {MAX_FILES} files")));
            }
        }
        for name in names {
            shards.add(folder.join(name))?;
        }
        match map.iter().find(|(tensor, _)| !shards.tensors.contains_key(*tensor)) {
            Some((tensor, file)) => {
                Err(map.error(tensor, format_args!("is not in {file}; get the model again")))
            }
            None => Ok(shards),
        }
    }

    fn add(&mut self, path: PathBuf) -> Result {
        let failed = |error: std::io::Error| damaged(&path, format_args!("cannot be read: {error}"));
        if !std::fs::metadata(&path).map_err(failed)?.is_file() {
            return Err(damaged(&path, "is no regular file"));
        }
        let file = File::open(&path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        let mut n = [0; 8];
        read_at(&file, &mut n, 0).map_err(failed)?;
        let header_bytes = u64::from_le_bytes(n);
        if header_bytes > MAX_HEADER_BYTES.min(len - 8) {
            let problem =
                format!("declares a header of {header_bytes} bytes at offset 0, more than the file can hold");
            return Err(damaged(&path, problem));
        }
        let mut header = vec![0; header_bytes as usize];
        read_at(&file, &mut header, 8).map_err(failed)?;
        // The crate checks that the tensors follow each other without gaps and have the bytes their shapes ask for.
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|error| damaged(&path, format_args!("has a damaged header after offset 8: {error}")))?;
        let data = 8 + header_bytes;
        if header.data_len() as u64 != len - data {
            let problem = format!(
                "holds {} bytes of tensors, its header says {}; get it again",
                len - data,
                header.data_len()
            );
            return Err(damaged(&path, problem));
        }
        let index = self.files.len();
        for (name, info) in header.tensors() {
            let offset = data + info.data_offsets.0 as u64;
            let stored = Stored { file: index, offset, dtype: info.dtype, shape: info.shape.clone() };
            if self.tensors.insert(name.clone(), stored).is_some() {
                return Err(damaged(&path, format_args!("holds {name:?}, as another file does")));
            }
        }
        self.paths.push(path);
        self.files.push(file);
        Ok(())
    }

    /// Paths of the files, by number.
    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Takes the tensor of this name out of those that nobody asked for.
    pub(super) fn take(&mut self, name: &str) -> Option<Stored> {
        self.tensors.remove(name)
    }

    /// Names of the tensors nobody has taken.
    pub(super) fn left(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Fills `out` from a file.
    pub(super) fn read(&self, file: usize, offset: u64, out: &mut [u8]) -> Result {
        let failed =
            |error| damaged(&self.paths[file], format_args!("cannot be read at offset {offset}: {error}"));
        read_at(&self.files[file], out, offset).map_err(failed)
    }
}
