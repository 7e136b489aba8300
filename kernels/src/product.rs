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
    /// `[rows, cols]`, as stored or packed.
    pub(crate) weights: &'a [u8],
    /// Whether the kernel's [`crate::registry::Pack`] went over them.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only AVX-512 kernels pack"))]
    pub(crate) packed: bool,
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
    /// The bytes of weight row `r`, unless packed.
    #[inline(always)]
    pub(crate) fn row(&self, r: usize) -> &[u8] {
        &self.weights[r * self.row_bytes..][..self.row_bytes]
    }

    /// Checks what kernels of rounded activations rely on, and gives the groups of one token.
    ///
    /// # Panics
    /// Where `format` is not the weight's, or something is shorter than it says.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub(crate) fn checked_groups(&self, format: Format, out: &Tile<'_, f32>) -> usize {
        let per_token = self.cols.div_ceil(crate::activations::GROUP);
        assert_eq!(self.format, format, "a kernel gets its own format");
        assert_eq!(self.format.row_bytes(self.cols), Some(self.row_bytes), "rows are whole blocks");
        let all = self.weights.len() >= self.rows * self.row_bytes && out.cols().end <= self.rows;
        assert!(all, "all rows are there");
        assert_eq!(self.quantized.per_token, per_token, "activations have the weight's columns");
        per_token
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Kernel, MatMul, Run, registry};
    use crate::scratch::{NO_LINE, Panel, Scratch};

    const ROWS: usize = 21;
    const TOKENS: usize = 11;

    fn matmul(kernel: &Kernel) -> MatMul {
        let Run::MatMul(matmul) = kernel.run else { panic!("{} multiplies matrices", kernel.name) };
        matmul
    }

    /// `x` holds whole rows of `cols` values, of tokens that are coarse or not.
    fn product(
        kernel: &Kernel,
        (weights, packed): (&[u8], bool),
        x: &[f32],
        coarse: &[bool],
        cols: usize,
    ) -> Vec<f32> {
        let (matmul, format, tokens) = (matmul(kernel), kernel.formats[0], x.len() / cols);
        let mut quantized = Activations::new(tokens, cols);
        let ([first, second], groups) = quantized.shape(tokens, cols);
        let per_token = groups.len() / tokens;
        let halves = first.chunks_exact_mut(per_token).zip(second.chunks_exact_mut(per_token));
        let rows = halves.zip(groups.chunks_exact_mut(per_token));
        let quantize = matmul.quantize.expect("the row quantizes");
        for ((x, coarse), ((first, second), groups)) in x.chunks_exact(cols).zip(coarse).zip(rows) {
            quantize.coarse.filter(|_| *coarse).unwrap_or(quantize.row)(x, [first, second], groups);
        }
        quantized.coarse = coarse.iter().map(|coarse| *coarse && quantize.coarse.is_some()).collect();
        let p = Product {
            weights,
            packed,
            format,
            rows: ROWS,
            cols,
            row_bytes: format.row_bytes(cols).expect("whole blocks"),
            tokens,
            x,
            quantized: &quantized,
            bias: None,
            residual: Residual::None,
        };
        let mut out = vec![f32::NAN; tokens * ROWS];
        let panel = Panel::of(cols);
        let (lines, sides) = (vec![NO_LINE; panel.lines], vec![0.0; panel.sides]);
        let mut scratch = Scratch { lines, sides, totals: vec![0.0; panel.totals], ..Scratch::default() };
        (matmul.product)(&p, &mut scratch, &mut Tile::whole(&mut out, tokens, ROWS));
        out
    }

    /// Of every kernel on 16-bit activations this machine runs.
    #[test]
    fn one_token_and_many_have_the_same_bits_wherever_a_row_ends_packed_or_not() {
        let mut state = 1u32;
        let mut bits = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        let rows = registry().iter().filter(|row| row.layout().is_some() && row.isa.available());
        for kernel in rows {
            let format = kernel.formats[0];
            for cols in (1..=18)
                .chain([48, 49, 103, 104])
                .map(|n| 32 * n)
                .filter(|cols| cols % format.block_len() == 0)
            {
                let n = ROWS * format.row_bytes(cols).expect("whole blocks");
                // Bytes below 0x40: whatever they are scales or values of, they are finite and not large.
                let weights: Vec<u8> = (0..n).map(|_| (bits() >> 18) as u8).collect();
                let x: Vec<f32> = (0..TOKENS * cols).map(|_| bits() as f32 / 8_388_608.0 - 1.0).collect();
                let coarse: Vec<bool> = (0..TOKENS).map(|_| bits() & 1 != 0).collect();
                let together = product(kernel, (&weights, false), &x, &coarse, cols);
                assert!(together.iter().any(|y| *y != 0.0));
                let same = |y: &[f32], weights: &str| {
                    for (i, (a, b)) in y.iter().zip(&together).enumerate() {
                        let (t, r) = (i / ROWS, i % ROWS);
                        let name = kernel.name;
                        assert_eq!(
                            a.to_bits(),
                            b.to_bits(),
                            "{name}, {weights}: row {r}, token {t}, {cols} columns"
                        );
                    }
                };
                let alone = |weights| -> Vec<f32> {
                    let tokens = x.chunks_exact(cols).enumerate();
                    tokens.flat_map(|(t, x)| product(kernel, weights, x, &coarse[t..=t], cols)).collect()
                };
                same(&alone((&weights, false)), "as stored");
                if let Some(pack) = matmul(kernel).pack {
                    let mut packed = vec![0; weights.len()];
                    pack(&weights, cols, &mut packed);
                    assert!(cols < 256 || packed != weights, "{}", kernel.name);
                    same(&alone((&packed, true)), "packed");
                    same(&product(kernel, (&packed, true), &x, &coarse, cols), "packed, together");
                }
            }
        }
    }
}
