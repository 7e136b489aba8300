//! An open model: one file, or all files of a split one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cchaha_plan::Bytes;

use crate::error::Place;
use crate::index::NameIndex;
use crate::map::map;
use crate::parse::{MAX_TENSORS, Parsed, parse};
use crate::split::SplitPath;
use crate::{Error, Metadata, TensorInfo};

/// An open model whose every part has been checked.
#[derive(Debug)]
pub struct Gguf {
    name: Arc<str>,
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: NameIndex,
    paths: Vec<PathBuf>,
    file_len: u64,
}

impl Gguf {
    /// Maps and checks the model at `path`. Any part of a split model opens all of its parts, which must lie in
    /// one folder under the usual names (`NAME-00001-of-00003.gguf`); metadata is the first part's.
    ///
    /// The file must not be changed while the model is in use.
    ///
    /// # Errors
    /// Everything [`Error`] lists under opening and reading; a file that opens is complete.
    pub fn open(path: &Path) -> Result<Gguf, Error> {
        // A path that names no file is reported as it was given, not as the first part of something.
        let bytes = map(path)?;
        let split = SplitPath::parse(path);
        let count = split.as_ref().map_or(1, |split| split.count);
        let first_path = split.as_ref().map_or(path.to_path_buf(), |split| split.sibling(1));
        let first_bytes = match &split {
            Some(split) if split.part != 1 => map_part(&first_path, 1, count)?,
            _ => bytes,
        };
        let mut model = Gguf::from_first(display(&first_path), first_bytes, count)?;
        model.paths.push(first_path);
        if let Some(split) = split {
            for part in 2..=count {
                let path = split.sibling(part);
                let bytes = map_part(&path, part, count)?;
                model.append(display(&path), bytes, part, count)?;
                model.paths.push(path);
            }
        }
        model.finish(count)
    }

    /// Checks a model that is in memory; `name` stands for the file in errors. It must be whole, not split.
    ///
    /// # Errors
    /// As [`Gguf::open`], apart from those of the file system.
    pub fn from_bytes(name: &str, bytes: Bytes) -> Result<Gguf, Error> {
        Gguf::from_first(name.into(), bytes, 1)?.finish(1)
    }

    fn from_first(name: Arc<str>, bytes: Bytes, count: u32) -> Result<Gguf, Error> {
        let Parsed { version, metadata, tensors } = parse(&name, &bytes, 0)?;
        check_part(&name, &metadata, 1, count)?;
        let file_len = bytes.len() as u64;
        Ok(Gguf {
            name,
            version,
            metadata,
            tensors,
            index: NameIndex::default(),
            paths: Vec::new(),
            file_len,
        })
    }

    fn append(&mut self, name: Arc<str>, bytes: Bytes, part: u32, count: u32) -> Result<(), Error> {
        let parsed = parse(&name, &bytes, part - 1)?;
        check_part(&name, &parsed.metadata, part, count)?;
        let n_tensors = (self.tensors.len() + parsed.tensors.len()) as u64;
        if n_tensors > MAX_TENSORS {
            let problem = format!("{n_tensors} tensors in all parts, at most {MAX_TENSORS} are supported");
            return Err(Error::Split { file: name.to_string(), problem });
        }
        self.tensors.reserve_exact(parsed.tensors.len());
        self.tensors.extend(parsed.tensors);
        self.file_len += bytes.len() as u64;
        Ok(())
    }

    fn finish(mut self, count: u32) -> Result<Gguf, Error> {
        if count > 1
            && let Some(declared) = self.metadata.usize("split.tensors.count")?
            && declared != self.tensors.len()
        {
            let found = self.tensors.len();
            let problem = format!("split.tensors.count is {declared}, but the parts hold {found} tensors");
            return Err(Error::Split { file: self.name.to_string(), problem });
        }
        self.index = NameIndex::build(self.tensors.len(), |i| &self.tensors[i].name).map_err(|second| {
            let tensor = &self.tensors[second];
            let path = self.paths.get(tensor.part as usize);
            Error::Duplicate {
                file: path.map_or_else(|| self.name.to_string(), |path| path.display().to_string()),
                place: Place::Tensor(&tensor.name).to_string(),
                at: tensor.offset,
            }
        })?;
        Ok(self)
    }

    /// The name used in errors: the path of the (first) file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The files this model was opened from, in order; empty for one from memory.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Version of the (first) file: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Keys and values of the (first) file.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name, by binary search.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let i = self.index.find(name, |i| &self.tensors[i].name).ok()?;
        Some(&self.tensors[i])
    }

    /// Bytes of all files together.
    pub fn file_len(&self) -> u64 {
        self.file_len
    }
}

fn display(path: &Path) -> Arc<str> {
    path.display().to_string().into()
}

fn map_part(path: &Path, part: u32, count: u32) -> Result<Bytes, Error> {
    map(path).map_err(|error| match error {
        Error::NotFound { file } => Error::PartNotFound { file, part, count },
        other => other,
    })
}

/// That a file is the part its name says; a whole model is part 1 of 1 and need not say so.
fn check_part(file: &str, metadata: &Metadata, part: u32, count: u32) -> Result<(), Error> {
    let wrong = |problem: String| Err(Error::Split { file: file.to_owned(), problem });
    match metadata.u32("split.count")? {
        None if count == 1 => return Ok(()),
        None => {
            return wrong(format!("by its name part {part} of {count}, but it has no key \"split.count\""));
        }
        Some(found) if found == count => {}
        Some(0) if count == 1 => {}
        Some(found) if count == 1 => {
            return wrong(format!(
                "one part of a model in {found}; open it by its path, with every part named as in \
                 NAME-00001-of-{found:05}.gguf"
            ));
        }
        Some(found) => return wrong(format!("by its name one part of {count}, but split.count is {found}")),
    }
    match metadata.u32("split.no")? {
        Some(no) if u64::from(no) + 1 == u64::from(part) => Ok(()),
        None if count == 1 => Ok(()),
        Some(no) => wrong(format!("by its name part {part}, but split.no is {no}, expected {}", part - 1)),
        None => wrong(format!("by its name part {part} of {count}, but it has no key \"split.no\"")),
    }
}
