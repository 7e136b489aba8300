//! What the matrix kernels share: one product's operands and what happens to a finished dot product.

use cchaha_plan::Format;

use crate::activations::Activations;
use crate::pool::Tile;

/// What is added to a product's outputs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Residual<'a> {
    None,
    /// What the output holds.
    Out,
    /// Another buffer, `[tokens, rows]`.
    Rows(&'a [f32]),
}

/// `out[t, r] = sum_c weights[r, c] * x[t, c] (+ bias[r]) (+ residual[t, r])`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product<'a> {
    /// `[rows, cols]` as stored.
    pub(crate) weights: &'a [u8],
    pub(crate) format: Format,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_bytes: usize,
    pub(crate) tokens: usize,
    /// `[tokens, cols]`.
    pub(crate) x: &'a [f32],
    /// `x` in 16 bits, for kernels that ask for it.
    pub(crate) quantized: &'a Activations,
    /// `[rows]`.
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) residual: Residual<'a>,
}

impl Product<'_> {
    /// The bytes of weight row `r`.
    #[inline(always)]
    pub(crate) fn row(&self, r: usize) -> &[u8] {
        &self.weights[r * self.row_bytes..][..self.row_bytes]
    }

    /// Finishes output `[token, row]`.
    #[inline(always)]
    pub(crate) fn put(&self, out: &mut Tile<'_, f32>, token: usize, row: usize, dot: f32) {
        let start = out.cols().start;
        let slot = &mut out.row(token)[row - start];
        let dot = match self.bias {
            None => dot,
            Some(bias) => dot + bias[row],
        };
        *slot = match self.residual {
            Residual::None => dot,
            Residual::Out => dot + *slot,
            Residual::Rows(rows) => dot + rows[token * self.rows + row],
        };
    }
}
