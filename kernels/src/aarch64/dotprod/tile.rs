//! Many tokens with `sdot`: tiles of 4 rows x 2 tokens over whole rows.
//!
//! Instructions for 32 columns of one output, loads counted (disassembly, rustc 1.96): 10.0, with a scale per 16 columns 14.3. Of these
//! 4 are sdot. Widening multiplications of 16-bit weights (smlal) would be 8 alone, with twice the bytes in the panel.

use std::arch::aarch64::*;

use super::product::{Tiles, add, blocks, dot, fours, offsets, unpack, vectors};
use super::weights::Weights;
use crate::activations::{GROUP, Group};
use crate::isa::Dotprod;
use crate::pool::Tile;
use crate::product::Product;

/// Rows and tokens of a tile: 8 sums, 8 halves of the next ones, 4 vectors of activations and the temporaries fill the 32 registers.
const ROWS: usize = 4;
const TOKENS: usize = 2;

/// A group of a row: 256 weights, scales, offsets.
#[repr(C, align(64))]
pub(in crate::aarch64) struct Row {
    w: [[i8; 16]; 16],
    scale: [f32; 16],
    offset: [f32; 16],
}

impl Tiles for Dotprod {
    type Packed = Row;
    const PACKED_ROWS: usize = 1;

    #[inline(always)]
    unsafe fn unpack<F: Weights>(p: &Product<'_>, row: usize, _: usize, to: *mut Row) {
        // SAFETY: the caller's promise.
        unsafe { unpack_row::<F>(p, row, to) }
    }

    #[inline(always)]
    unsafe fn multiply<F: Weights>(
        p: &Product<'_>,
        panel: *const Row,
        x: *const Group,
        at: (usize, usize),
        tokens: usize,
        rows: usize,
        out: &mut Tile<'_, f32>,
    ) {
        let per_row = p.cols.div_ceil(GROUP);
        let mut r = 0;
        while r < rows {
            let step = if r + ROWS <= rows { ROWS } else { 1 };
            let mut t = 0;
            while t < tokens {
                let pair = if t + TOKENS <= tokens { TOKENS } else { 1 };
                // SAFETY: the caller's promise.
                unsafe {
                    let (w, x) = (panel.add(r * per_row), x.add(t * per_row));
                    let at = (at.0 + t, at.1 + r);
                    match (step, pair) {
                        (ROWS, TOKENS) => tile::<F, ROWS, TOKENS>(p, w, x, at, out),
                        (ROWS, _) => tile::<F, ROWS, 1>(p, w, x, at, out),
                        (_, TOKENS) => tile::<F, 1, TOKENS>(p, w, x, at, out),
                        (_, _) => tile::<F, 1, 1>(p, w, x, at, out),
                    }
                }
                t += pair;
            }
            r += step;
        }
    }
}

#[target_feature(enable = "neon")]
unsafe fn unpack_row<F: Weights>(p: &Product<'_>, row: usize, to: *mut Row) {
    let w = p.row(row).as_ptr();
    for g in 0..p.cols.div_ceil(GROUP) {
        // SAFETY: the row is whole; there is a `Row` for every group, and any bytes are a valid one.
        unsafe {
            let to = &mut *to.add(g);
            let head = unpack::<F>(w.add(g * F::BYTES), blocks::<F>(p.cols, g), &mut to.w);
            for i in 0..4 {
                vst1q_f32(to.scale.as_mut_ptr().add(4 * i), head.scale[i]);
                vst1q_f32(to.offset.as_mut_ptr().add(4 * i), head.offset[i]);
            }
        }
    }
}

/// Outputs of `T` tokens and `R` rows from `at` = (token, row), where `w` (`[row][group]`) and `x` (`[token][group]`) start.
///
/// A function of its own: inlined into the loop over formats its registers would be shared with it.
#[inline(never)]
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile<F: Weights, const R: usize, const T: usize>(
    p: &Product<'_>,
    w: *const Row,
    x: *const Group,
    at: (usize, usize),
    out: &mut Tile<'_, f32>,
) {
    let per_row = p.cols.div_ceil(GROUP);
    let mut totals = [[0.0f32; T]; R];
    for g in 0..per_row {
        // SAFETY: dot products are there; every row and token has this group.
        unsafe {
            let (w, x) = (w.add(g), x.add(g));
            let mut sums = [[vdupq_n_f32(0.0); T]; R];
            for i in 0..fours::<F>(blocks::<F>(p.cols, g)) {
                let dots: [[int32x4_t; T]; R] = if F::SCALES == 8 {
                    let first: [[int32x4_t; T]; R] =
                        paired(runs(w, x, per_row, 4 * i), runs(w, x, per_row, 4 * i + 1));
                    paired(first, paired(runs(w, x, per_row, 4 * i + 2), runs(w, x, per_row, 4 * i + 3)))
                } else {
                    paired(half_runs(w, x, per_row, 2 * i), half_runs(w, x, per_row, 2 * i + 1))
                };
                for r in 0..R {
                    let scale = vld1q_f32((*w.add(r * per_row)).scale.as_ptr().add(4 * i));
                    for t in 0..T {
                        sums[r][t] = vfmaq_f32(sums[r][t], vcvtq_f32_s32(dots[r][t]), scale);
                    }
                }
            }
            for r in 0..R {
                let from = (*w.add(r * per_row)).offset.as_ptr();
                let offset = [0, 4, 8, 12].map(|at| vld1q_f32(from.add(at)));
                for t in 0..T {
                    let x = &*x.add(t * per_row);
                    let group = add(offsets::<F>(sums[r][t], &offset, x));
                    totals[r][t] = x.scales[0].mul_add(group, totals[r][t]);
                }
            }
        }
    }
    for t in 0..T {
        for r in 0..R {
            p.put(out, at.0 + t, at.1 + r, totals[r][t]);
        }
    }
}

/// Sums of neighbouring lanes, of `a` and then of `b`.
#[inline(always)]
unsafe fn paired<const R: usize, const T: usize>(
    mut a: [[int32x4_t; T]; R],
    b: [[int32x4_t; T]; R],
) -> [[int32x4_t; T]; R] {
    for r in 0..R {
        for t in 0..T {
            // SAFETY: the caller has NEON.
            a[r][t] = unsafe { vpaddq_s32(a[r][t], b[r][t]) };
        }
    }
    a
}

/// Products of run `b`; rows and tokens are `per_row` groups apart.
#[inline(always)]
unsafe fn runs<const R: usize, const T: usize>(
    w: *const Row,
    x: *const Group,
    per_row: usize,
    b: usize,
) -> [[int32x4_t; T]; R] {
    // SAFETY: the caller has dot products and these groups.
    unsafe {
        let mut dots = [[vdupq_n_s32(0); T]; R];
        for t in 0..T {
            let x = vectors(&(*x.add(t * per_row)).planes[b]);
            for r in 0..R {
                let w = (*w.add(r * per_row)).w.as_ptr().add(2 * b).cast::<i8>();
                dots[r][t] = dot([vld1q_s8(w), vld1q_s8(w.add(16))], x);
            }
        }
        dots
    }
}

/// Products of the halves of run `b`, neighbouring lanes added.
#[inline(always)]
unsafe fn half_runs<const R: usize, const T: usize>(
    w: *const Row,
    x: *const Group,
    per_row: usize,
    b: usize,
) -> [[int32x4_t; T]; R] {
    // SAFETY: as above.
    unsafe {
        let mut dots = [[vdupq_n_s32(0); T]; R];
        for t in 0..T {
            let [high, low] = vectors(&(*x.add(t * per_row)).planes[b]);
            for r in 0..R {
                let w = (*w.add(r * per_row)).w.as_ptr().add(2 * b).cast::<i8>();
                let first = dot([vld1q_s8(w)], [[high[0]], [low[0]]]);
                let second = dot([vld1q_s8(w.add(16))], [[high[1]], [low[1]]]);
                dots[r][t] = vpaddq_s32(first, second);
            }
        }
        dots
    }
}
