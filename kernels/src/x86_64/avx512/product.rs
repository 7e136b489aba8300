//! Matrix products of quantized weights with 16-bit activations: one loop for all formats.
//!
//! ```text
//! out[t, r] = sum over 8 lanes:  sum over steps of 256 columns:  sx[t, lane] * ( scale[r, lane] * float(i32 sum of w x in the lane)
//!                                                                              + offset[r, lane] * sum of x in the lane )
//!
//! many tokens   w: 2 rows x 8 lanes x 4 bytes   vpdpbusd   x: 8 lanes x 4 bytes, in both halves   8 times a step
//!               16 bits: upper bytes, << 8, lower bytes;   coarse tokens: one byte, and a unit for each lane
//! one token     w: 32 bytes of a run            vpdpbusd   upper bytes of x, << 8, vpdpbusd lower bytes of x;   8 runs, folded
//! ```
//! A lane is a run of 32 columns (`avx2/runs.rs`), so that 8 vpdpbusd go by before sums meet a scale: laid out as on AVX2, with the columns
//! of a run side by side, each would need a convert and an FMA. The ends of rows that are no whole step are steps of 4, 2 and 1 runs
//! whose lanes hold parts of runs: a width of 896 or 576 costs no more than its columns.
//!
//! The sums of a lane are exact, so that how one token and many get there makes no difference; floats are added in the same order, scale
//! then offset, step by step: the same bits whatever the tile, the batch and the threads.
//!
//! Many tokens: 16 rows are unpacked to unsigned bytes in L1 or L2, then multiplied in tiles of 8 rows (4 registers) x 3 tokens: 12 sums,
//! 12 totals, 4 weights, 1 activation, and nothing leaves the registers. Of a coarse step 8 of 11 instructions on the two pipes
//! that multiply are vpdpbusd (10 without offsets): 0.73 of the peak of 128 operations a cycle at best. Qwen2.5-Coder-1.5B Q4_K_M, 512
//! tokens: tiles run at 0.62 of the peak (perf, 2-core AMD EPYC Zen 4, 2026-11), the whole at 0.47.
//!
//! What was tried (the same machine, 512 tokens, 1.5B and 0.5B): tiles of 8 rows x 6 tokens, whose totals stay in memory, 0.85 and 0.87 of the
//! speed; weights as words and vpdpwssd for tokens in 16 bits alone, as fast as two passes of bytes. Coarse tokens read prompts 1.56 times as fast
//! as 16 bits (both models).
//!
//! Zen 5, which multiplies 512 bits twice a cycle and has 48 KiB of L1, is bound by what surrounds the products. One thread, 512 coarse tokens, G operations
//! per second of 1090 at best (AMD EPYC Zen 5, 2026-11):
//!
//! ```text
//!                                                                            Q4_K, 8960 columns   Q4_K, 1536 columns
//! whole rows, outputs stored in halves and read again                                       372                  493
//! rows in parts of 1536 columns, outputs in registers (`put`)                               474                  524
//! a chance to read scales for every token again, which the compiler does not take           468                  533
//! coarse tokens in bytes that stand together (`activations.rs`)                             480                  572
//! 96 tokens through one tile's rows, then through the other's (Q6_K 500 and 530)            530                  570
//! ```
//! The tile alone, in C on data in L1, runs at 744, and its products without scales at 1034. Lost: parts of 768 and 1024 columns, 419 and 435 of 466
//! (a tile costs 70 cycles to begin and end), of 2304 and 3072 columns, 0.93 to 0.99 of the last line; panels of 32 rows, nothing; the next tokens'
//! activations asked for, nothing; a scale times a unit before the sums are there, nothing. On Zen 4, whose L1 holds no such part, parts (then in
//! wider panels) had 0.93 and 0.97 on 8960 and 4864 columns.
//!
//! Closures around intrinsics while unpacking cost 4 to 10% of a product of 64 tokens: they are not inlined.
//!
//! One token: unpacking dominates, and is AVX2's; 3 instructions multiply 32 columns (AVX2 5 to 6), folding 8 runs takes 21.
//!
//! Measured with one thread, 1216 x 1024 weights in cache, AVX2 and AVX-512 in turn (2-core AMD EPYC Zen 4, 2026-11): 64 tokens in 16 bits, G
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
//! Packed (`packed/`), 4864 x 1024 weights: Q4_K 27, Q5_0 32, Q6_K 34. Qwen2.5-Coder Q4_K_M then decodes 1.04 (0.5B) and 1.18 times as fast (1.5B), at
//! what memory gives. On Zen 5 packed rows are read at Q4_K 56, Q5_0 67, Q6_K 66, and Q8_0 as stored at 52, one thread in cache, 39 from memory.

use std::ops::Range;

use super::super::avx2::panel::{Room, unpack};
use super::super::avx2::weights::Weights;
use super::many::{Unsigned, many};
use super::one::one;
use super::packed::{self, Packed};
use crate::activations::{Activations, Group, Half};
use crate::isa::Avx512;
use crate::pool::Tile;
use crate::product::Product;
use crate::scratch::Scratch;

/// Activations, `[token][group]`.
#[derive(Clone, Copy)]
pub(super) struct X<'a> {
    pub(super) halves: [&'a [Half]; 2],
    pub(super) groups: &'a [Group],
    /// `[token]`.
    pub(super) coarse: &'a [bool],
}

/// The outputs of one tile: columns of the tile are rows of the weight.
pub(super) fn product<F: Weights>(
    _: Avx512,
    p: &Product<'_>,
    scratch: &mut Scratch,
    out: &mut Tile<'_, f32>,
) {
    let x = activations::<F>(p, out);
    // SAFETY: the token proves the instructions; the lengths were checked.
    unsafe {
        if *x.coarse == [false] {
            one::<F>(p, x, out);
        } else {
            many::<F>(p, x, unpack_rows::<F>, scratch, out);
        }
    }
}

/// The same, of a format whose rows may be packed.
pub(super) fn product_of_packed<F: Packed>(
    token: Avx512,
    p: &Product<'_>,
    scratch: &mut Scratch,
    out: &mut Tile<'_, f32>,
) {
    if !p.packed {
        return product::<F>(token, p, scratch, out);
    }
    let x = activations::<F>(p, out);
    let Range { start, end } = out.cols();
    assert!(
        start % packed::ROWS == 0 && (end % packed::ROWS == 0 || end == p.rows),
        "no part cuts four rows"
    );
    // SAFETY: the token proves the instructions; the lengths were checked.
    unsafe {
        if *x.coarse == [false] {
            packed::one::<F>(p, x, out);
        } else {
            many::<F>(p, x, packed::unpack_packed::<F>, scratch, out);
        }
    }
}

/// The activations, of checked lengths.
fn activations<'a, F: Weights>(p: &Product<'a>, out: &Tile<'_, f32>) -> X<'a> {
    let groups = p.tokens * p.checked_groups(F::FORMAT, out);
    let Activations { halves, groups: all, coarse, .. } = p.quantized;
    let halves = halves.each_ref().map(|half| &half[..groups]);
    X { halves, groups: &all[..groups], coarse: &coarse[..p.tokens] }
}

/// A panel of rows as stored.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn unpack_rows<F: Weights>(
    p: &Product<'_>,
    rows: Range<usize>,
    scratch: &mut Scratch,
) -> Room<Unsigned> {
    // SAFETY: the caller's promise.
    unsafe { unpack::<F, Unsigned>(p, rows, scratch) }
}
