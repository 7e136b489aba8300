//! Importance matrices: for each column of a weight, the mean square of the inputs it is multiplied with.
//!
//! The file is llama.cpp's: a GGUF with `general.type` "imatrix" and for each weight `NAME.in_sum2`, the sums of the
//! squares, `[cols, matrices]`, and `NAME.counts`, how many inputs each matrix saw, `[1, matrices]`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use cchaha::gguf::{self, Array, Dims, Gguf, Metadata, TensorSpec, Value};
use cchaha::kernels::formats::dequantize;
use cchaha::plan::Format;

use crate::exit::{Failure, Result};

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";
/// What `general.type` says.
const TYPE: &str = "imatrix";

/// What one weight saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// Sums of squares, `[matrices, cols]`.
    pub(crate) sums: Vec<f64>,
    /// Inputs, `[matrices]`.
    pub(crate) counts: Vec<u64>,
}

impl Seen {
    /// For a weight of these dimensions.
    pub(crate) fn new(cols: usize, matrices: usize) -> Seen {
        Seen { sums: vec![0.0; cols * matrices], counts: vec![0; matrices] }
    }

    fn cols(&self) -> usize {
        self.sums.len() / self.counts.len().max(1)
    }

    /// The importance of each column for matrix `m`; ones for an expert that no token chose. A file may have one matrix
    /// for all experts.
    pub(crate) fn importance(&self, m: usize) -> Vec<f32> {
        let m = if self.counts.len() == 1 { 0 } else { m };
        let sums = &self.sums[m * self.cols()..][..self.cols()];
        match self.counts[m] {
            0 => vec![1.0; sums.len()],
            count => sums.iter().map(|sum| (sum / count as f64) as f32).collect(),
        }
    }
}

/// Importance by the weight's name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Imatrix {
    pub(crate) weights: BTreeMap<String, Seen>,
    /// The texts it was collected on.
    pub(crate) datasets: Vec<String>,
    /// Tokens evaluated together, and how often.
    pub(crate) chunk_size: u32,
    pub(crate) chunk_count: u32,
}

impl Imatrix {
    /// Reads a file.
    ///
    /// # Errors
    /// Where it is no importance matrix, or holds sums that cannot be.
    pub(crate) fn read(path: &Path) -> Result<Imatrix> {
        let file = Gguf::open(path).map_err(cchaha::Error::from)?;
        let wrong = |what: String| Failure::model(format!("{}: {what}", path.display()));
        let metadata = file.metadata();
        let kind = metadata.str("general.type").map_err(cchaha::Error::from)?;
        if kind != Some(TYPE) {
            return Err(wrong(format!(
                "general.type is {}, expected \"imatrix\"; make one with `quantize imatrix`",
                kind.map_or("missing".into(), |kind| format!("{kind:?}"))
            )));
        }
        let mut imatrix = Imatrix {
            chunk_size: metadata.u32("imatrix.chunk_size").map_err(cchaha::Error::from)?.unwrap_or(0),
            chunk_count: metadata.u32("imatrix.chunk_count").map_err(cchaha::Error::from)?.unwrap_or(0),
            ..Imatrix::default()
        };
        if let Some(names) = metadata.strings("imatrix.datasets").map_err(cchaha::Error::from)? {
            imatrix.datasets = names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        }
        for tensor in file.tensors() {
            let Some(name) = tensor.name.strip_suffix(SUMS) else { continue };
            let counts = file.tensor(&format!("{name}{COUNTS}"));
            let counts = counts.ok_or_else(|| wrong(format!("{name}{COUNTS} is missing")))?;
            let numbers = |tensor: &gguf::TensorInfo| {
                if tensor.format != Format::F32 {
                    return Err(wrong(format!("{} is {}, expected F32", tensor.name, tensor.format)));
                }
                let mut numbers = vec![0.0; tensor.dims.n_values()];
                dequantize(Format::F32, tensor.data.as_slice(), &mut numbers);
                match numbers.iter().all(|x| x.is_finite() && *x >= 0.0) {
                    true => Ok(numbers),
                    false => Err(wrong(format!("{} holds what is no number of 0 or more", tensor.name))),
                }
            };
            let (sums, counts) = (numbers(tensor)?, numbers(counts)?);
            if sums.len() != counts.len() * tensor.dims.cols() {
                return Err(wrong(format!(
                    "{name}: {} sums do not belong to {} counts",
                    sums.len(),
                    counts.len()
                )));
            }
            let seen = Seen {
                sums: sums.into_iter().map(f64::from).collect(),
                counts: counts.into_iter().map(|count| count as u64).collect(),
            };
            imatrix.weights.insert(name.to_owned(), seen);
        }
        match imatrix.weights.is_empty() {
            true => Err(wrong("holds no sums of any weight".into())),
            false => Ok(imatrix),
        }
    }

    /// Writes a file, in one step.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result {
        let mut metadata = Metadata::new();
        metadata.set("general.type", Value::Str(TYPE.into()));
        metadata.set("imatrix.datasets", Value::Array(Array::Strings(self.datasets.iter().collect())));
        metadata.set("imatrix.chunk_count", Value::U32(self.chunk_count));
        metadata.set("imatrix.chunk_size", Value::U32(self.chunk_size));
        let mut specs = Vec::new();
        let mut data: Vec<Vec<f32>> = Vec::new();
        for (name, seen) in &self.weights {
            let dims =
                |cols| Dims::new(&[cols, seen.counts.len()]).expect("invariant: collected from a weight");
            for (end, dims, numbers) in [
                (SUMS, dims(seen.cols()), seen.sums.iter().map(|&sum| sum as f32).collect()),
                (COUNTS, dims(1), seen.counts.iter().map(|&count| count as f32).collect()),
            ] {
                specs.push(TensorSpec { name: format!("{name}{end}"), format: Format::F32, dims });
                data.push(numbers);
            }
        }
        let write =
            |i: usize, out: &mut dyn Write| data[i].iter().try_for_each(|x| out.write_all(&x.to_le_bytes()));
        Ok(gguf::write(path, &metadata, &specs, write).map_err(cchaha::Error::from)?)
    }

    /// The importance of a weight's columns, matrix by matrix; `None` for a weight it does not know.
    ///
    /// # Errors
    /// Where the weight has other dimensions than the one it was collected for.
    pub(crate) fn of(&self, name: &str, dims: Dims) -> Result<Option<Vec<Vec<f32>>>> {
        let Some(seen) = self.weights.get(name) else { return Ok(None) };
        let matrices = dims.iter().skip(2).product::<usize>();
        if seen.cols() != dims.cols() || ![1, matrices].contains(&seen.counts.len()) {
            return Err(Failure::usage(format!(
                "the importance matrix has {} columns of {} matrices for {name}, which has {dims}: it belongs to another model",
                seen.cols(),
                seen.counts.len()
            )));
        }
        Ok(Some((0..matrices).map(|m| seen.importance(m)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("m.gguf");
        let mut imatrix =
            Imatrix { datasets: vec!["a.txt".into()], chunk_size: 512, chunk_count: 3, ..Imatrix::default() };
        imatrix.weights.insert("a.weight".into(), Seen { sums: vec![1.0, 2.5, 0.0], counts: vec![2] });
        imatrix
            .weights
            .insert("b.weight".into(), Seen { sums: vec![1.0, 4.0, 9.0, 16.0], counts: vec![0, 4] });
        imatrix.write(&path).expect("written");
        let read = Imatrix::read(&path).expect("read");
        assert_eq!(read, imatrix);
        let dims = Dims::new(&[2, 5, 2]).expect("dims");
        assert_eq!(read.of("b.weight", dims).expect("fits"), Some(vec![vec![1.0, 1.0], vec![2.25, 4.0]]));
        assert!(read.of("a.weight", dims).is_err());
        assert_eq!(read.of("c.weight", dims).expect("unknown"), None);
    }
}
