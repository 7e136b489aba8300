//! Where weights come from: one trait, whatever the files look like.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use cchaha::gguf::{Dims, Gguf, Metadata};
use cchaha::plan::Format;

use crate::exit::{Failure, Result};

/// A model to be converted: its metadata, its tensors, and their values row by row.
///
/// Everything but [`read_rows`](Source::read_rows) is small and checked when the source is opened. Rows are read by
/// several threads at once, a few megabytes at a time, so that memory stays bounded whatever the tensor.
pub(crate) trait Source: Sync {
    /// For messages: the path as given.
    fn name(&self) -> &str;

    /// Every file that is read. The target must be none of them.
    fn files(&self) -> &[PathBuf];

    /// All keys and values of the target in GGUF's terms, except `general.file_type` and
    /// `general.quantization_version`, which the conversion sets.
    fn metadata(&self) -> &Metadata;

    /// The tensors of the target, in the order they are written.
    fn tensors(&self) -> &[SourceTensor];

    /// Reads rows of a tensor as f32: `out` holds `rows.len() * dims.cols()` values. A tensor of three dimensions is
    /// `dims.rows()` rows one after the other.
    ///
    /// # Errors
    /// Where the files cannot be read any more or hold values that a weight cannot have.
    fn read_rows(&self, tensor: usize, rows: Range<usize>, out: &mut [f32]) -> Result;

    /// The bytes of these rows as GGUF stores [`SourceTensor::format`], where the source has them: they are copied when
    /// the target has the same format.
    fn stored_rows(&self, _tensor: usize, _rows: Range<usize>) -> Option<Cow<'_, [u8]>> {
        None
    }
}

/// A tensor as the target names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceTensor {
    /// GGUF's name, such as `blk.0.attn_q.weight`.
    pub(crate) name: String,
    /// Dimensions, columns first.
    pub(crate) dims: Dims,
    /// How the source stores it: what a copy keeps, and what `--dry-run` compares with.
    pub(crate) format: Format,
}

/// Refuses names of models on the hub where a file is wanted.
///
/// # Errors
/// Where the path begins with `hf:`.
pub(crate) fn local(path: &Path) -> Result<&Path> {
    match path.to_str().filter(|text| text.starts_with("hf:")) {
        None => Ok(path),
        Some(name) => Err(Failure::usage(format!(
            "{name} is a model on the hub; `cchaha-run pull {name}` fetches it and prints its path, which is wanted here"
        ))),
    }
}

/// Opens whatever is at `path`.
///
/// # Errors
/// Where nothing is there, or it is damaged or of an unknown kind.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Source>> {
    let path = local(path)?;
    if crate::hf::is_checkpoint(path) {
        return Ok(Box::new(crate::hf::HfSource::open(path)?));
    }
    Ok(Box::new(GgufSource::open(path)?))
}

/// A GGUF file, or all parts of a split one. Rows are read and not mapped, so that the source takes no memory however
/// large it is.
pub(crate) struct GgufSource {
    gguf: Gguf,
    files: Vec<File>,
    metadata: Metadata,
    tensors: Vec<SourceTensor>,
}

impl GgufSource {
    /// Opens and checks it.
    pub(crate) fn open(path: &Path) -> Result<GgufSource> {
        let gguf = Gguf::open(path).map_err(cchaha::Error::from)?;
        let tensors = gguf.tensors().iter();
        let tensors =
            tensors.map(|t| SourceTensor { name: t.name.clone(), dims: t.dims, format: t.format }).collect();
        // How the source was split or summed says nothing about the target.
        let mut metadata = Metadata::new();
        for (key, value) in gguf.metadata().iter() {
            if !key.starts_with("split.") && !key.starts_with("cchaha.checksum.") {
                metadata.set(key, value.clone());
            }
        }
        let failed = |path: &Path, error| Failure::model(format!("cannot open {}: {error}", path.display()));
        let files = gguf.paths().iter().map(|path| File::open(path).map_err(|error| failed(path, error)));
        let files = files.collect::<Result<_>>()?;
        Ok(GgufSource { gguf, files, metadata, tensors })
    }

    fn bytes(&self, tensor: usize, rows: Range<usize>) -> Result<Vec<u8>> {
        let info = &self.gguf.tensors()[tensor];
        let failed = |problem: &dyn std::fmt::Display| {
            Failure::model(format!("{}: rows of {} cannot be read: {problem}", self.name(), info.name))
        };
        let row_bytes = info.format.row_bytes(info.dims.cols());
        let row_bytes = row_bytes.filter(|_| rows.start <= rows.end && rows.end <= info.dims.rows());
        let (row_bytes, file) =
            row_bytes.zip(self.files.get(info.part as usize)).ok_or_else(|| failed(&"they do not exist"))?;
        let mut bytes = vec![0; rows.len() * row_bytes];
        let offset = info.offset + (rows.start * row_bytes) as u64;
        read_at(file, &mut bytes, offset).map_err(|error| failed(&error))?;
        Ok(bytes)
    }
}

impl Source for GgufSource {
    fn name(&self) -> &str {
        self.gguf.name()
    }

    fn files(&self) -> &[PathBuf] {
        self.gguf.paths()
    }

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn tensors(&self) -> &[SourceTensor] {
        &self.tensors
    }

    fn read_rows(&self, tensor: usize, rows: Range<usize>, out: &mut [f32]) -> Result {
        let bytes = self.bytes(tensor, rows)?;
        cchaha::kernels::formats::dequantize(self.tensors[tensor].format, &bytes, out);
        Ok(())
    }

    fn stored_rows(&self, tensor: usize, rows: Range<usize>) -> Option<Cow<'_, [u8]>> {
        // What cannot be read here cannot be read by `read_rows` either, and that says why.
        self.bytes(tensor, rows).ok().map(Cow::Owned)
    }
}

/// Fills `out` with what is at `offset`.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

/// Fills `out` with what is at `offset`.
#[cfg(windows)]
pub(crate) fn read_at(file: &File, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !out.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, out, offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out = &mut out[read..];
        offset += read as u64;
    }
    Ok(())
}
