//! A tensor of the file: name, format, dimensions and its bytes.

use std::fmt;
use std::ops::Deref;

use cchaha_plan::{Bytes, Format};

/// One to four dimensions in ggml's order: `dims[0]` is the number of columns and changes fastest, so a weight
/// that maps `n_in` values to `n_out` has dims `[n_in, n_out]`. None is zero, and their product fits in `usize`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dims {
    lens: [usize; Dims::MAX],
    n: u8,
}

impl Dims {
    /// The most dimensions a tensor has.
    pub const MAX: usize = 4;

    /// `None` where there are no or more than four dimensions, one is zero, or the product is too large.
    pub fn new(dims: &[usize]) -> Option<Dims> {
        let mut lens = [1; Dims::MAX];
        lens.get_mut(..dims.len())?.copy_from_slice(dims);
        let product = lens.iter().try_fold(1usize, |product, &len| product.checked_mul(len))?;
        (product > 0 && !dims.is_empty()).then_some(Dims { lens, n: dims.len() as u8 })
    }

    /// Values in one row, the dimension that changes fastest.
    pub fn cols(&self) -> usize {
        self.lens[0]
    }

    /// How many rows: the product of all dimensions but the first.
    pub fn rows(&self) -> usize {
        self.lens[1..].iter().product()
    }

    /// The product of all dimensions.
    pub fn n_values(&self) -> usize {
        self.lens.iter().product()
    }

    /// Bytes of a tensor of these dimensions, or `None` where a row is no whole number of blocks or the size
    /// does not fit in `usize`.
    pub fn n_bytes(&self, format: Format) -> Option<usize> {
        format.row_bytes(self.cols())?.checked_mul(self.rows())
    }
}

impl Deref for Dims {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.lens[..usize::from(self.n)]
    }
}

impl fmt::Debug for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Dims {
    /// As in `896 x 151936`, columns first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lens: Vec<String> = self.iter().map(usize::to_string).collect();
        f.pad(&lens.join(" x "))
    }
}

/// A tensor of an open model.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Name, unique in the model, for example `blk.0.attn_q.weight`.
    pub name: String,
    /// How the values are stored.
    pub format: Format,
    /// Dimensions, columns first.
    pub dims: Dims,
    /// The stored values: exactly `dims.n_bytes(format)` bytes. In an opened file they start on a multiple of
    /// `general.alignment`, at least 8, in memory too.
    pub data: Bytes,
    /// Where the data starts, in bytes from the start of its file.
    pub offset: u64,
    /// Which file of a split model holds it, from 0.
    pub part: u32,
}
