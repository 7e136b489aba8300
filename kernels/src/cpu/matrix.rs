//! Matrix products as parallel regions: how rows are dealt to threads, and when activations are quantized.

use cchaha_plan::{Activation, Weight};

use super::Picked;
use crate::activations::Activations;
use crate::generic::elementwise::Input;
use crate::pool::{Grid, Pool};
use crate::product::{Product, Residual};
use crate::registry::Quantize;
use crate::scratch::Scratch;

/// Weight rows of a part when there are many tokens: a 16-bit panel of 16 rows of 8192 values is 256 KiB, a quarter of
/// the L2 cache of current cores.
const PANEL_ROWS: usize = 16;

/// Bytes of weights a part should stream when there is one token, so that taking a part costs nothing beside it.
const PART_BYTES: usize = 32 << 10;

/// What every product of a step needs.
#[derive(Debug)]
pub(crate) struct Matrix<'a> {
    pub(crate) picked: &'a Picked,
    pub(crate) pool: &'a Pool,
    pub(crate) scratch: &'a mut [Scratch],
}

/// Rows `first..first + rows` of a weight (one expert's matrix) against `tokens` rows of activations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operands<'a> {
    pub(crate) weight: &'a Weight,
    /// The weight's bytes, where they are packed.
    pub(crate) packed: Option<&'a [u8]>,
    pub(crate) expert: usize,
    pub(crate) tokens: usize,
    pub(crate) x: &'a [f32],
    pub(crate) quantized: &'a Activations,
}

impl<'a> Operands<'a> {
    fn product(self, bias: Option<&'a [f32]>, residual: Residual<'a>) -> Product<'a> {
        let shape = self.weight.shape;
        let row_bytes = self.weight.row_bytes();
        let bytes = shape.rows * row_bytes;
        Product {
            weights: &self.packed.unwrap_or(self.weight.bytes.as_slice())[self.expert * bytes..][..bytes],
            packed: self.packed.is_some(),
            format: self.weight.format,
            rows: shape.rows,
            cols: shape.cols,
            row_bytes,
            tokens: self.tokens,
            x: self.x,
            quantized: self.quantized,
            bias,
            residual,
        }
    }
}

impl Matrix<'_> {
    /// How to quantize activations for this weight, if its kernel wants that.
    pub(crate) fn quantizer(&self, weight: &Weight) -> Option<Quantize> {
        self.picked.matmul[weight.format as usize].quantize
    }

    /// Quantizes rows of `cols` values, of the tokens for which `coarse` says whether they are.
    pub(crate) fn quantize(
        &mut self,
        quantize: Quantize,
        x: &[f32],
        cols: usize,
        coarse: impl ExactSizeIterator<Item = bool>,
        to: &mut Activations,
    ) {
        let tokens = coarse.len();
        if tokens == 0 {
            return; // a batch of which no logits are wanted
        }
        let mut flags = std::mem::take(&mut to.coarse);
        for (flag, coarse) in flags.iter_mut().zip(coarse) {
            *flag = coarse && quantize.coarse.is_some();
        }
        let ([first, second], groups) = to.shape(tokens, cols);
        let per_token = groups.len() / tokens;
        let halves = (
            Grid::new(first, tokens, per_token, 8, per_token),
            Grid::new(second, tokens, per_token, 8, per_token),
        );
        let grids = (halves, Grid::new(groups, tokens, per_token, 8, per_token));
        self.pool.run(self.scratch, grids, |_, _, ((mut first, mut second), mut groups)| {
            for t in groups.rows() {
                let row = quantize.coarse.filter(|_| flags[t]).unwrap_or(quantize.row);
                row(&x[t * cols..][..cols], [first.row(t), second.row(t)], groups.row(t));
            }
        });
        to.coarse = flags;
    }

    /// Rows of the weight in one part.
    fn part_rows(&self, p: &Product<'_>) -> usize {
        if p.tokens > 1 {
            return PANEL_ROWS;
        }
        let even = p.rows.div_ceil(4 * self.pool.threads());
        even.max(PART_BYTES / p.row_bytes).next_multiple_of(8)
    }

    /// `out[t, r] = weight[r, :] . x[t, :] (+ bias[r]) (+ residual[t, r])`.
    pub(crate) fn multiply(
        &mut self,
        operands: Operands<'_>,
        bias: Option<&[f32]>,
        residual: Residual<'_>,
        out: &mut [f32],
    ) {
        let p = operands.product(bias, residual);
        if p.tokens == 0 {
            return;
        }
        let kernel = self.picked.matmul[p.format as usize].product;
        let grid = Grid::new(out, p.tokens, p.rows, p.tokens, self.part_rows(&p));
        self.pool.run(self.scratch, grid, |scratch, _, mut tile| kernel(&p, scratch, &mut tile));
    }

    /// `out = activation(gate . x) * (up . x)`, one region; `gate_out` is scratch of the size of `out`.
    pub(crate) fn gated(
        &mut self,
        gate: Operands<'_>,
        up: Operands<'_>,
        activation: Activation,
        gate_out: &mut [f32],
        out: &mut [f32],
    ) {
        let (gate, up) = (gate.product(None, Residual::None), up.product(None, Residual::None));
        if gate.tokens == 0 {
            return;
        }
        let rows = self.part_rows(&gate);
        let kernel = |p: &Product<'_>| self.picked.matmul[p.format as usize].product;
        let (gate_kernel, up_kernel, activate) = (kernel(&gate), kernel(&up), self.picked.activate);
        let grids = (
            Grid::new(gate_out, gate.tokens, gate.rows, gate.tokens, rows),
            Grid::new(out, gate.tokens, gate.rows, gate.tokens, rows),
        );
        self.pool.run(self.scratch, grids, |scratch, _, (mut gates, mut tile)| {
            gate_kernel(&gate, scratch, &mut gates);
            up_kernel(&up, scratch, &mut tile);
            for t in tile.rows() {
                activate(activation, Input::Row(gates.row(t)), Some(Input::Out), tile.row(t));
            }
        });
    }
}
