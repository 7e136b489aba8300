//! From a source to a GGUF file: rows are read, encoded and written in pieces, so that memory stays small whatever the
//! model.

use std::cell::RefCell;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use cchaha::gguf::{self, Metadata, Staged, TensorSpec, Value};
use cchaha::kernels::Isa;
use cchaha::kernels::encode::{EncodeError, Encoder};
use cchaha::plan::Format;
use cchaha_cli::interrupt::Stoppable;
use cchaha_cli::output::{Unit, progress_in};

use crate::checksum::{self, Checksum};
use crate::exit::{Failure, Result};
use crate::imatrix::Imatrix;
use crate::pipeline::ordered;
use crate::source::{Source, SourceTensor};
use crate::target::paths;

/// Values read and encoded at once: small enough for the second-level cache, and enough that taking a piece costs nothing.
const PIECE: usize = 1 << 16;

/// A conversion, ready to run.
pub(crate) struct Conversion<'a> {
    pub(crate) source: &'a dyn Source,
    /// Of every tensor.
    pub(crate) formats: Vec<Format>,
    pub(crate) imatrix: Option<&'a Imatrix>,
    /// `general.file_type`.
    pub(crate) file_type: u32,
    pub(crate) threads: usize,
    /// Bytes of one file at most, if the model is to be split.
    pub(crate) split: Option<u64>,
}

/// Rows of one tensor.
#[derive(Clone, Debug)]
struct Piece {
    tensor: usize,
    rows: Range<usize>,
}

impl Conversion<'_> {
    /// Bytes of every tensor.
    pub(crate) fn sizes(&self) -> Vec<u64> {
        let tensors = self.source.tensors().iter().zip(&self.formats);
        tensors.map(|(tensor, &format)| tensor.dims.n_bytes(format).map_or(u64::MAX, |n| n as u64)).collect()
    }

    /// Writes the file, or the parts it is split into. All are complete under temporary names before the first gets its
    /// own, and the first part, without which nothing is read, gets its last.
    ///
    /// # Errors
    /// Where the source cannot be read, a value cannot be stored, or the file system refuses; then nothing has changed.
    pub(crate) fn write(&self, target: &Path) -> Result<Vec<PathBuf>> {
        let parts = self.parts();
        let paths = paths(target, parts.len());
        let importance = self.importance()?;
        let pieces: Vec<Piece> =
            parts.iter().rev().flat_map(|part| part.clone()).flat_map(|t| self.pieces(t)).collect();
        let stop = Stoppable::begin();
        let mut bar = progress_in(Unit::Bytes, "writing");
        let sizes = self.sizes();
        let total: u64 = sizes.iter().sum();
        let mut sums = vec![0; self.formats.len()];
        let mut done = 0;
        let failure = RefCell::new(None);
        let fail = |error: Failure| {
            *failure.borrow_mut() = Some(error);
            io::Error::other("the conversion failed")
        };
        let make = |i: usize| self.encode(&pieces[i], &importance);
        let staged = ordered(self.threads, pieces.len(), make, |next| {
            let mut taken = pieces.iter();
            let mut staged: Vec<Staged> = Vec::new();
            // From the last part to the first, whose metadata holds the checksums of all.
            for (number, (part, path)) in parts.iter().zip(&paths).enumerate().rev() {
                let specs = self.specs(part.clone());
                let metadata = self.metadata(number, parts.len());
                let finished: RefCell<&mut Vec<u64>> = RefCell::new(&mut sums);
                let data = |i: usize, out: &mut dyn Write| {
                    let tensor = part.start + i;
                    let rows = self.source.tensors()[tensor].dims.rows();
                    let mut sum = Checksum::new();
                    loop {
                        let piece =
                            taken.next().expect("invariant: pieces are those of the tensors, in order");
                        if stop.requested() {
                            return Err(fail(Failure::interrupted()));
                        }
                        let bytes = next().map_err(&fail)?;
                        sum.update(&bytes);
                        out.write_all(&bytes)?;
                        done += bytes.len() as u64;
                        bar.at(done as usize, total as usize);
                        if piece.rows.end == rows {
                            finished.borrow_mut()[tensor] = sum.finish();
                            return Ok(());
                        }
                    }
                };
                let finish = |metadata: &mut Metadata| {
                    if number == 0 {
                        checksum::set(metadata, &finished.borrow());
                    }
                };
                staged.push(gguf::stage(path, &metadata, &specs, data, finish)?);
            }
            Ok(staged)
        });
        drop(bar);
        let staged = staged.map_err(|error: gguf::Error| {
            failure.take().unwrap_or_else(|| Failure::from(cchaha::Error::from(error)))
        })?;
        for staged in staged {
            staged.commit().map_err(cchaha::Error::from)?;
        }
        Ok(paths)
    }

    /// Which tensors go into which file.
    pub(crate) fn parts(&self) -> Vec<Range<usize>> {
        let most = self.split.unwrap_or(u64::MAX);
        let mut parts: Vec<Range<usize>> = Vec::new();
        let mut filled = 0;
        for (i, size) in self.sizes().into_iter().enumerate() {
            match parts.last_mut() {
                Some(part) if size <= most - filled => {
                    part.end = i + 1;
                    filled += size;
                }
                _ => {
                    parts.push(i..i + 1);
                    filled = size.min(most);
                }
            }
        }
        parts
    }

    fn specs(&self, part: Range<usize>) -> Vec<TensorSpec> {
        let tensors = self.source.tensors()[part.clone()].iter().zip(&self.formats[part]);
        tensors
            .map(|(tensor, &format)| TensorSpec { name: tensor.name.clone(), format, dims: tensor.dims })
            .collect()
    }

    /// The metadata of one of `count` files: all keys are in the first.
    fn metadata(&self, number: usize, count: usize) -> Metadata {
        let mut metadata = Metadata::new();
        if number == 0 {
            metadata = self.source.metadata().clone();
            metadata.set("general.file_type", Value::U32(self.file_type));
            if self.formats.iter().any(|format| format.block_len() > 1) {
                metadata.set("general.quantization_version", Value::U32(2));
            }
            // Zeros in the place of what is known at the end.
            checksum::set(&mut metadata, &vec![0; self.formats.len()]);
        }
        if count > 1 {
            metadata.set("split.no", Value::U16(number as u16));
            metadata.set("split.count", Value::U16(count as u16));
            metadata.set("split.tensors.count", Value::I32(self.formats.len() as i32));
        }
        metadata
    }

    /// A tensor's rows, cut up. A piece belongs to one matrix, and a tensor that is copied is cut as well.
    fn pieces(&self, tensor: usize) -> Vec<Piece> {
        let dims = self.source.tensors()[tensor].dims;
        let matrix = dims.get(1).copied().unwrap_or(1);
        let step = (PIECE / dims.cols()).max(1);
        let starts = (0..dims.rows()).step_by(matrix).flat_map(|first| {
            (first..first + matrix).step_by(step).map(move |start| start..(start + step).min(first + matrix))
        });
        starts.map(|rows| Piece { tensor, rows }).collect()
    }

    /// Importance of the columns of every tensor, by matrix.
    fn importance(&self) -> Result<Vec<Option<Vec<Vec<f32>>>>> {
        let of = |tensor: &SourceTensor| match self.imatrix {
            Some(imatrix) => imatrix.of(&tensor.name, tensor.dims),
            None => Ok(None),
        };
        self.source.tensors().iter().map(of).collect()
    }

    fn encode(&self, piece: &Piece, importance: &[Option<Vec<Vec<f32>>>]) -> Result<Vec<u8>> {
        let tensor = &self.source.tensors()[piece.tensor];
        let format = self.formats[piece.tensor];
        if tensor.format == format
            && let Some(bytes) = self.source.stored_rows(piece.tensor, piece.rows.clone())
        {
            return Ok(bytes.into_owned());
        }
        let cols = tensor.dims.cols();
        let mut values = vec![0.0; piece.rows.len() * cols];
        self.source.read_rows(piece.tensor, piece.rows.clone(), &mut values)?;
        let bytes = format.row_bytes(cols).map(|bytes| bytes * piece.rows.len());
        let mut out = vec![0; bytes.expect("invariant: formats were chosen to fit")];
        let matrix = piece.rows.start / tensor.dims.get(1).copied().unwrap_or(1);
        let weights = importance[piece.tensor].as_ref().map(|by_matrix| by_matrix[matrix].as_slice());
        Encoder::of(format, Isa::best()).encode(&values, weights, &mut out).map_err(|error| {
            let place = match error {
                EncodeError::NotFinite { index } | EncodeError::TooLarge { index, .. } => {
                    format!(" (row {}, column {})", piece.rows.start + index / cols, index % cols)
                }
                EncodeError::Importance { .. } => String::new(),
            };
            Failure::model(format!("{}: {}{place}: {error}", self.source.name(), tensor.name))
        })?;
        Ok(out)
    }
}
