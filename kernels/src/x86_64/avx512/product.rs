//! Matrix products of quantized weights with 16-bit activations: one loop for all formats.
//!
//! ```text
//! out[t, r] = sum over 8 lanes:  sum over steps of 256 columns:  sx[t] * ( scale[r, lane] * float(i32 sum of w x in the lane)
//!                                                                        + offset[r, lane] * sum of x in the lane )
//!
//! many tokens   w: 2 rows x 8 lanes x 2 i16    vpdpwssd   x: 8 lanes x 2 i16, in both halves    16 times a step: 16 sums
//! one token     w: 32 bytes of a run           vpdpbusd   upper bytes of x, << 8, vpdpbusd lower bytes of x;   8 runs, folded
//! ```
//! A lane is a run of 32 columns (`lanes.rs`), so that 16 vpdpwssd go by before sums meet a scale: laid out as on AVX2, with the columns
//! of a run side by side, each vpdpwssd would need a convert and an FMA, which share its pipes, and formats with a scale per run could
//! not pass half of the peak. The ends of rows that are no whole step are steps of 4, 2 and 1 runs whose lanes hold parts of runs: a width
//! of 896 or 576 costs no more than its columns.
//!
//! The sums of a lane are exact, so that how one token and many get there makes no difference; floats are added in the same order, scale
//! then offset, step by step: the same bits whatever the tile, the batch and the threads.
//!
//! Many tokens: 16 rows are unpacked into a panel in L2, then tiles of 8 rows (4 registers) x 6 tokens: 24 accumulators, 4 weights,
//! 1 activation. Totals stay in memory; they are touched once a step. Predicted: 16 vpdpwssd of 18 (20 with offsets, 12 of 16
//! for Q6_K, whose sums are taken twice) instructions on the two pipes that multiply, 0.75 to 0.89 of the peak of 64 operations a
//! cycle. Not built, on the same count: rows in lanes and activations broadcast, 16 rows x 2 columns, has as few scales, but one token
//! would then have to add its scales in another order or transpose what it read; two planes of bytes (vpdpbusd) take as many
//! instructions as one vector of words and cannot hold the integer scales of Q2_K, Q3_K and Q6_K.
//!
//! Closures around intrinsics while unpacking cost 4 to 10% of a product of 64 tokens: they are not inlined.
//!
//! One token: unpacking dominates, and is AVX2's; 3 instructions multiply 32 columns (AVX2 5 to 6), folding 8 runs takes 21.
//!
//! Measured with one thread, 1216 x 1024 weights in cache, AVX2 and AVX-512 in turn (2-core AMD EPYC Zen 4, 2026-11): 64 tokens, G
//! operations per second:
//!
//! ```text
//!          Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4
//! AVX2       93   89   96   93   97  110  105  121  119   95     98    119    97
//! AVX-512   156  147  154  150  157  147  142  148  148  126    155    151   151
//! ```
//! and one token, GB/s of weights:
//!
//! ```text
//! AVX2     14.1 14.6 13.1 13.4 28.5  7.4  3.2 14.6 15.9 15.9   13.2    9.6   8.4
//! AVX-512  18.0 17.4 15.8 15.9 38.5  6.0  3.7 17.4 18.6 23.2   15.3   13.4   8.8
//! ```

use super::super::avx2::weights::Weights;
use super::many::many;
use super::one::one;
use crate::activations::{Group, Lines};
use crate::isa::Avx512;
use crate::pool::Tile;
use crate::product::Product;
use crate::scratch::Scratch;

/// Activations, `[token][group]`.
#[derive(Clone, Copy)]
pub(super) struct X<'a> {
    pub(super) lines: &'a [Lines],
    pub(super) groups: &'a [Group],
}

/// The outputs of one tile: columns of the tile are rows of the weight.
pub(super) fn product<F: Weights>(
    _: Avx512,
    p: &Product<'_>,
    scratch: &mut Scratch,
    out: &mut Tile<'_, f32>,
) {
    let groups = p.tokens * p.checked_groups(F::FORMAT, out);
    let x = X { lines: &p.quantized.lines[..groups], groups: &p.quantized.groups[..groups] };
    // SAFETY: the token proves the instructions; the lengths were checked.
    unsafe { if p.tokens == 1 { one::<F>(p, x, out) } else { many::<F>(p, x, scratch, out) } }
}

/// The steps of `runs` (at most 8) runs of a group: where each begins, and how many it has.
pub(super) fn steps(runs: usize) -> impl Iterator<Item = (usize, usize)> {
    [8, 4, 2, 1].into_iter().filter(move |n| runs & n != 0).scan(0, |first, n| {
        let step = (*first, n);
        *first += n;
        Some(step)
    })
}
