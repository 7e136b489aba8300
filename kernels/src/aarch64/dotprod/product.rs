//! Matrix products of quantized weights with 16-bit activations: one loop for all formats.
//!
//! ```text
//! out[t, r] = sum over groups g of 256 columns:  sx[t, g] * ( sum over scales s:   scale[r, s] * float(i32 sum of w x under s)
//!                                                          + sum over offsets o:  offset[r, o] * sum of x under o )
//!
//! w, 32 bytes   sdot   upper bytes of x     -> 4 lanes of i32;  shl 8;
//!               sdot   lower bytes of x     -> added to them: 4 lanes of w x
//! four such     addp, addp, addp            -> 4 lanes, one per scale;  scvtf, fmla with four scales
//! ```
//! A scale belongs to 32 or to 16 columns. Scale and offset `i` of a group go to lane `i % 4` of its four f32 sums, offsets after
//! scales, in order; a group is `(0 + 1) + (2 + 3)`, and groups are added in order. The i32 part is exact. Every kernel of this
//! architecture keeps this order, in whichever registers it has the lanes, so one token (rows straight from the mapped file) and
//! many (rows unpacked to bytes once per panel; `dotprod/tile.rs`, `i8mm/tile.rs`) give the same bits, whatever the tile,
//! the batch and the threads.
//!
//! AVX2 multiplies by integer scales inside the i32 sum, to convert less often. Here adding across lanes has to be done sometime,
//! and done in integers it leaves one conversion and one fmla for four scales: fewer than multiplying in integers would take,
//! and formats with integer scales need no code of their own.
//!
//! Instructions for 256 weights and one token, everything counted (disassembly, rustc 1.96): Q8_0 105, Q4_0 125, IQ4_NL 131, Q4_1 136,
//! Q4_K 139, IQ4_XS 146, Q5_0 174, Q2_K 179, Q5_K and MXFP4 180, Q6_K 200, Q3_K 204, Q5_1 215. Written and tested under an
//! emulator: no speed has been measured, and one row at a time is what was best on x86-64.
//!
//! `vdotq_s32` and `vmmlaq_s32` are unstable in Rust 1.95 (`stdarch_neon_dotprod`, `stdarch_neon_i8mm`), hence [`sdot`] in
//! assembly.

use std::arch::aarch64::*;
use std::arch::asm;

use super::weights::{Head, Weights};
use crate::activations::{GROUP, GROUP_LINES, Group, Planes};
use crate::pool::Tile;
use crate::product::Product;
use crate::scratch::{Panel, Scratch};

/// Products of a panel of rows with many tokens.
pub(in crate::aarch64) trait Tiles: Copy {
    /// One group of one row, unpacked; for `i8mm` one group of two rows.
    type Packed;
    /// Rows in it.
    const PACKED_ROWS: usize;

    /// Unpacks `row`, and the rows after it that share its `Packed`, of which there are `rows`: `[group]`.
    ///
    /// # Safety
    /// The token's instructions; the rows are whole; there is one `Packed` for every group.
    unsafe fn unpack<F: Weights>(p: &Product<'_>, row: usize, rows: usize, to: *mut Self::Packed);

    /// Outputs of `tokens` tokens and `rows` rows from `at` = (token, row), where `panel` (`[row / PACKED_ROWS][group]`) and `x`
    /// (`[token][group]`) start.
    ///
    /// # Safety
    /// The token's instructions; the panel has these rows and `x` these tokens.
    unsafe fn multiply<F: Weights>(
        p: &Product<'_>,
        panel: *const Self::Packed,
        x: *const Group,
        at: (usize, usize),
        tokens: usize,
        rows: usize,
        out: &mut Tile<'_, f32>,
    );
}

/// The outputs of one tile: columns of the tile are rows of the weight.
pub(in crate::aarch64) fn product<F: Weights, T: Tiles>(
    _: T,
    p: &Product<'_>,
    scratch: &mut Scratch,
    out: &mut Tile<'_, f32>,
) {
    let per_token = p.checked_groups(F::FORMAT, out);
    let x = &p.quantized.groups[..p.tokens * per_token];
    // SAFETY: the token proves the instructions, `sdot` among them; the lengths were checked.
    unsafe { if p.tokens == 1 { one::<F>(p, x, out) } else { many::<F, T>(p, x, scratch, out) } }
}

/// Runs of 32 columns in group `g`.
#[inline(always)]
pub(in crate::aarch64) fn blocks<F: Weights>(cols: usize, g: usize) -> usize {
    if F::FORMAT.block_len() == GROUP { GROUP_LINES } else { ((cols - g * GROUP) / 32).min(GROUP_LINES) }
}

/// Fours of scales in `blocks` runs.
#[inline(always)]
pub(in crate::aarch64) fn fours<F: Weights>(blocks: usize) -> usize {
    (blocks * F::SCALES / GROUP_LINES).div_ceil(4)
}

#[target_feature(enable = "neon,dotprod")]
unsafe fn one<F: Weights>(p: &Product<'_>, x: &[Group], out: &mut Tile<'_, f32>) {
    for row in out.cols() {
        let mut total = 0.0;
        for (g, x) in x.iter().enumerate() {
            // SAFETY: rows and groups were checked by the caller.
            unsafe {
                let w = p.weights.as_ptr().add(row * p.row_bytes + g * F::BYTES);
                let group = match blocks::<F>(p.cols, g) {
                    8 => group_of_one::<F, 8>(w, x, 8),
                    4 => group_of_one::<F, 4>(w, x, 4),
                    n => group_of_one::<F, 0>(w, x, n),
                };
                total = x.scales[0].mul_add(group, total);
            }
        }
        p.put(out, 0, row, total);
    }
}

/// A group of `blocks` runs: 8, at the end of a row 4 for the widths models have, and any (`N` = 0) for the rest.
#[inline(always)]
unsafe fn group_of_one<F: Weights, const N: usize>(w: *const u8, x: &Group, blocks: usize) -> f32 {
    let blocks = if N == 0 { blocks } else { N };
    // SAFETY: `w` holds `blocks` runs of 32 values.
    unsafe {
        let head = F::head(w, blocks);
        let mut sums = vdupq_n_f32(0.0);
        // Spelled out: unpacking needs the run as a constant, and the compiler does not unroll a body this long.
        macro_rules! four {
            ($($i:literal)*) => {$(
                if $i < fours::<F>(blocks) {
                    let dots = if F::SCALES == 8 {
                        [
                            whole::<F>(w, x, 4 * $i, blocks),
                            whole::<F>(w, x, 4 * $i + 1, blocks),
                            whole::<F>(w, x, 4 * $i + 2, blocks),
                            whole::<F>(w, x, 4 * $i + 3, blocks),
                        ]
                    } else {
                        let ([a, b], [c, d]) = (halves::<F>(w, x, 2 * $i), halves::<F>(w, x, 2 * $i + 1));
                        [a, b, c, d]
                    };
                    sums = vfmaq_f32(sums, vcvtq_f32_s32(across(dots)), head.scale[$i]);
                }
            )*};
        }
        four!(0 1 2 3);
        add(offsets::<F>(sums, &head.offset, x))
    }
}

/// Products of run `b`; none past `blocks`.
#[inline(always)]
unsafe fn whole<F: Weights>(w: *const u8, x: &Group, b: usize, blocks: usize) -> int32x4_t {
    // SAFETY: `w` holds `blocks` runs.
    unsafe {
        if b >= blocks {
            return vdupq_n_s32(0);
        }
        dot(F::load(w, b), vectors(&x.planes[b]))
    }
}

/// Products of the halves of run `b`.
#[inline(always)]
unsafe fn halves<F: Weights>(w: *const u8, x: &Group, b: usize) -> [int32x4_t; 2] {
    // SAFETY: `w` holds run `b`.
    unsafe {
        let ([first, second], [high, low]) = (F::load(w, b), vectors(&x.planes[b]));
        [dot([first], [[high[0]], [low[0]]]), dot([second], [[high[1]], [low[1]]])]
    }
}

/// The upper and the lower bytes of a run.
#[inline(always)]
pub(super) unsafe fn vectors(x: &Planes) -> [[int8x16_t; 2]; 2] {
    // SAFETY: the caller has NEON; each plane is two vectors.
    unsafe {
        let [high, low] = [x.0[0].as_ptr(), x.0[1].as_ptr()];
        [[vld1q_s8(high), vld1q_s8(high.add(16))], [vld1q_s8(low), vld1q_s8(low.add(16))]]
    }
}

/// `w x` in four lanes, `x` in upper and lower bytes.
#[inline(always)]
pub(super) unsafe fn dot<const N: usize>(w: [int8x16_t; N], x: [[int8x16_t; N]; 2]) -> int32x4_t {
    // SAFETY: the caller has dot products.
    unsafe {
        let mut sum = vdupq_n_s32(0);
        for i in 0..N {
            sum = sdot(sum, w[i], x[0][i]);
        }
        sum = vshlq_n_s32::<8>(sum);
        for i in 0..N {
            sum = sdot(sum, w[i], x[1][i]);
        }
        sum
    }
}

/// `sum + a b`, four products to a lane.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: dot products are there.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// The sum of each of four vectors.
#[inline(always)]
pub(super) unsafe fn across(x: [int32x4_t; 4]) -> int32x4_t {
    // SAFETY: the caller has NEON.
    unsafe { vpaddq_s32(vpaddq_s32(x[0], x[1]), vpaddq_s32(x[2], x[3])) }
}

/// `group + offsets * sums of x`.
#[inline(always)]
pub(super) unsafe fn offsets<F: Weights>(
    mut group: float32x4_t,
    offset: &[float32x4_t; 4],
    x: &Group,
) -> float32x4_t {
    let sums = if F::OFFSETS == 8 { x.sums32.as_ptr() } else { x.sums16.as_ptr() };
    for i in 0..F::OFFSETS / 4 {
        // SAFETY: the caller has NEON; there are as many sums as offsets.
        group = unsafe { vfmaq_f32(group, offset[i], vld1q_f32(sums.add(4 * i))) };
    }
    group
}

/// `(0 + 1) + (2 + 3)`.
#[inline(always)]
pub(super) unsafe fn add(x: float32x4_t) -> f32 {
    // SAFETY: the caller has NEON.
    unsafe { vpadds_f32(vget_low_f32(vpaddq_f32(x, x))) }
}

/// 16 rows are unpacked into an L2-sized panel, then meet eight tokens after eight.
unsafe fn many<F: Weights, T: Tiles>(
    p: &Product<'_>,
    x: &[Group],
    scratch: &mut Scratch,
    out: &mut Tile<'_, f32>,
) {
    let per_row = p.cols.div_ceil(GROUP);
    // Weights in bytes with their scales take less room than the 16-bit weights a panel is made for.
    const { assert!(size_of::<T::Packed>() <= T::PACKED_ROWS * GROUP_LINES * 64 && align_of::<T::Packed>() <= 64) }
    let panel = scratch.lines[..Panel::ROWS * per_row * GROUP_LINES].as_mut_ptr().cast::<T::Packed>();
    let rows = out.cols();
    for first in rows.clone().step_by(Panel::ROWS) {
        let count = Panel::ROWS.min(rows.end - first);
        for r in (0..count).step_by(T::PACKED_ROWS) {
            // SAFETY: the panel has room for the rows, and they are whole.
            unsafe {
                let to = panel.add(r / T::PACKED_ROWS * per_row);
                T::unpack::<F>(p, first + r, T::PACKED_ROWS.min(count - r), to);
            }
        }
        for token in (0..p.tokens).step_by(Panel::TOKENS) {
            let tokens = Panel::TOKENS.min(p.tokens - token);
            let x = &x[token * per_row..][..tokens * per_row];
            // SAFETY: the panel has these rows and `x` these tokens.
            unsafe { T::multiply::<F>(p, panel, x.as_ptr(), (token, first), tokens, count, out) };
        }
    }
}

/// Writes out the first `blocks` runs, 16 values at a time, and zeros up to the next four scales.
///
/// # Safety
/// NEON, and `w` holds that many.
#[inline(always)]
pub(in crate::aarch64) unsafe fn unpack<F: Weights>(
    w: *const u8,
    blocks: usize,
    to: &mut [[i8; 16]; 16],
) -> Head {
    // SAFETY: the caller's promise.
    unsafe {
        for b in 0..blocks {
            let [first, second] = F::load(w, b);
            vst1q_s8(to[2 * b].as_mut_ptr(), first);
            vst1q_s8(to[2 * b + 1].as_mut_ptr(), second);
        }
        let end = fours::<F>(blocks) * 4 * GROUP_LINES / F::SCALES;
        to[2 * blocks..2 * end].fill([0; 16]);
        F::head(w, blocks)
    }
}
