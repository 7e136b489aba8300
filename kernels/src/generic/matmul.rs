//! Matrix products on f32 activations: float weights, and every format under `--exact` or without a faster kernel.
//!
//! ```text
//! out[t, r] = sum_c w[r, c] x[t, c]
//!
//!   4 rows of w, dequantized into a panel        x, 3 tokens
//!   +--------------------------------+           +--------------------------------+
//!   | r0 .. r3: f32, stays in L1/L2  |     .     | t0 .. t2                       |   12 accumulators of 8 lanes
//!   +--------------------------------+           +--------------------------------+
//! ```
//! 4 x 3 because 12 accumulators, 3 tokens and one row's vector fill the 16 registers of AVX2. Each `(t, r)` owns one
//! accumulator and walks the columns in order, so a result does not depend on the tile it was computed in.

use cchaha_plan::Format;

use crate::formats;
use crate::pool::Tile;
use crate::product::Product;
use crate::scratch::Scratch;
use crate::simd::{LANES, Simd};

const ROWS: usize = 4;
const TOKENS: usize = 3;

/// The outputs of one tile: columns of the tile are rows of the weight.
#[inline(always)]
pub(crate) fn product<S: Simd>(s: S, p: &Product<'_>, scratch: &mut Scratch, out: &mut Tile<'_, f32>) {
    let rows = out.cols();
    let mut first = rows.start;
    while first < rows.end {
        let count = ROWS.min(rows.end - first);
        let panel = &mut scratch.floats[..count * p.cols];
        for (r, row) in panel.chunks_exact_mut(p.cols).enumerate() {
            dequantize(s, p.format, p.row(first + r), row);
        }
        if count == ROWS {
            tokens::<S, ROWS>(s, p, panel, first, out);
        } else {
            for (r, row) in panel.chunks_exact(p.cols).enumerate() {
                tokens::<S, 1>(s, p, row, first + r, out);
            }
        }
        first += count;
    }
}

/// Values scratch must have for [`product`].
pub(crate) const fn panel_len(cols: usize) -> usize {
    ROWS * cols
}

#[inline(always)]
fn tokens<S: Simd, const R: usize>(
    s: S,
    p: &Product<'_>,
    panel: &[f32],
    first: usize,
    out: &mut Tile<'_, f32>,
) {
    let mut t = 0;
    while t + TOKENS <= p.tokens {
        micro::<S, R, TOKENS>(s, p, panel, first, t, out);
        t += TOKENS;
    }
    while t < p.tokens {
        micro::<S, R, 1>(s, p, panel, first, t, out);
        t += 1;
    }
}

#[inline(always)]
fn micro<S: Simd, const R: usize, const T: usize>(
    s: S,
    p: &Product<'_>,
    panel: &[f32],
    first: usize,
    token: usize,
    out: &mut Tile<'_, f32>,
) {
    let cols = p.cols;
    let w: [&[f32]; R] = std::array::from_fn(|r| &panel[r * cols..][..cols]);
    let x: [&[f32]; T] = std::array::from_fn(|t| &p.x[(token + t) * cols..][..cols]);
    let w8 = w.map(|row| row.as_chunks::<LANES>().0);
    let x8 = x.map(|row| row.as_chunks::<LANES>().0);
    let mut sums = [[s.splat(0.0); T]; R];
    let full = cols / LANES;
    for c in 0..full {
        let xs: [S::V; T] = std::array::from_fn(|t| s.load(&x8[t][c]));
        for r in 0..R {
            let v = s.load(&w8[r][c]);
            for t in 0..T {
                sums[r][t] = s.fma(v, xs[t], sums[r][t]);
            }
        }
    }
    let tail = full * LANES;
    if tail < cols {
        for r in 0..R {
            let v = s.load_tail(&w[r][tail..]);
            for t in 0..T {
                sums[r][t] = s.fma(v, s.load_tail(&x[t][tail..]), sums[r][t]);
            }
        }
    }
    for t in 0..T {
        for r in 0..R {
            p.put(out, token + t, first + r, s.sum(sums[r][t]));
        }
    }
}

/// One row of a weight as f32.
#[inline(always)]
fn dequantize<S: Simd>(s: S, format: Format, bytes: &[u8], out: &mut [f32]) {
    if format != Format::F16 {
        return formats::dequantize(format, bytes, out);
    }
    let (chunks, tail) = out.as_chunks_mut::<LANES>();
    let (halves, rest) = bytes.as_chunks::<{ 2 * LANES }>();
    for (out, bytes) in chunks.iter_mut().zip(halves) {
        let bits = std::array::from_fn(|i| u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]));
        s.store(s.load_f16(&bits), out);
    }
    formats::dequantize(format, rest, tail);
}
