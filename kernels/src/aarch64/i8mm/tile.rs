//! Many tokens with `smmla`: tiles of 8 rows x 2 tokens over whole rows.
//!
//! ```text
//! r0 c0..8 | r1 c0..8    smmla   t0 c0..8 | t1 c0..8    ->   r0 t0 | r0 t1 | r1 t0 | r1 t1,  eight products each
//! ```
//! Rows are unpacked two by two in this order; activations are brought into it in registers, once for the eight rows. Each lane
//! is one output, so the four sums that `dotprod/product.rs` keeps in the lanes of one register are four registers here, and what is
//! added to which is the same.
//!
//! Instructions for 32 columns of one output, loads counted (disassembly, rustc 1.96): 6.7, with a scale per 16 columns 8.4 to 9.1. Of
//! these 2 are smmla.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::aarch64::dotprod::product::{Tiles, blocks, fours, unpack};
use crate::aarch64::dotprod::weights::Weights;
use crate::activations::{GROUP, GROUP_LINES, Group};
use crate::isa::I8mm;
use crate::pool::Tile;
use crate::product::Product;

/// Pairs of rows of a tile: 16 sums, 4 products, 4 vectors of activations and the temporaries fill the 32 registers.
const PAIRS: usize = 4;

/// A group of two rows: weights by eights, scales and offsets as the lanes of an output need them.
#[repr(C, align(64))]
pub(in crate::aarch64) struct Pair {
    w: [[i8; 16]; 32],
    scale: [[f32; 4]; 16],
    offset: [[f32; 4]; 16],
}

impl Tiles for I8mm {
    type Packed = Pair;
    const PACKED_ROWS: usize = 2;

    #[inline(always)]
    unsafe fn unpack<F: Weights>(p: &Product<'_>, row: usize, rows: usize, to: *mut Pair) {
        // SAFETY: the caller's promise.
        unsafe { unpack_pair::<F>(p, [row, row + rows - 1], to) }
    }

    #[inline(always)]
    unsafe fn multiply<F: Weights>(
        p: &Product<'_>,
        panel: *const Pair,
        x: *const Group,
        at: (usize, usize),
        tokens: usize,
        rows: usize,
        out: &mut Tile<'_, f32>,
    ) {
        let per_row = p.cols.div_ceil(GROUP);
        let mut r = 0;
        while r < rows {
            let step = if r + 2 * PAIRS <= rows { 2 * PAIRS } else { 2 };
            for t in (0..tokens).step_by(2) {
                let (at, count) = ((at.0 + t, at.1 + r), (tokens - t, rows - r));
                // SAFETY: the caller's promise; a last token without a neighbour is its own.
                unsafe {
                    let w = panel.add(r / 2 * per_row);
                    let x = [x.add(t * per_row), x.add((t + 1).min(tokens - 1) * per_row)];
                    if step == 2 {
                        tile::<F, 1>(p, w, x, at, count, out);
                    } else {
                        tile::<F, PAIRS>(p, w, x, at, count, out);
                    }
                }
            }
            r += step;
        }
    }
}

/// A last row without a neighbour comes as both.
#[target_feature(enable = "neon")]
unsafe fn unpack_pair<F: Weights>(p: &Product<'_>, rows: [usize; 2], to: *mut Pair) {
    let rows = rows.map(|row| p.row(row).as_ptr());
    let mut w = [[[0i8; 16]; 16]; 2];
    for g in 0..p.cols.div_ceil(GROUP) {
        let blocks = blocks::<F>(p.cols, g);
        // SAFETY: the rows are whole; there is a `Pair` for every group, and any bytes are a valid one.
        unsafe {
            let to = &mut *to.add(g);
            let a = unpack::<F>(rows[0].add(g * F::BYTES), blocks, &mut w[0]);
            let b = unpack::<F>(rows[1].add(g * F::BYTES), blocks, &mut w[1]);
            for i in 0..16 {
                let w = [&w[0][i], &w[1][i]];
                let [first, second] = zipped(vld1q_s8(w[0].as_ptr()), vld1q_s8(w[1].as_ptr()));
                vst1q_s8(to.w[2 * i].as_mut_ptr(), first);
                vst1q_s8(to.w[2 * i + 1].as_mut_ptr(), second);
            }
            for i in 0..4 {
                spread(a.scale[i], b.scale[i], &mut to.scale[4 * i..]);
                spread(a.offset[i], b.offset[i], &mut to.offset[4 * i..]);
            }
        }
    }
}

/// The first eight bytes of both, then the others.
#[inline(always)]
unsafe fn zipped(a: int8x16_t, b: int8x16_t) -> [int8x16_t; 2] {
    // SAFETY: the caller has NEON.
    unsafe {
        let (a, b) = (vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b));
        [vreinterpretq_s8_s64(vzip1q_s64(a, b)), vreinterpretq_s8_s64(vzip2q_s64(a, b))]
    }
}

/// `[a0, a0, b0, b0]` and so on.
#[inline(always)]
unsafe fn spread(a: float32x4_t, b: float32x4_t, to: &mut [[f32; 4]]) {
    // SAFETY: the caller has NEON.
    unsafe {
        let low = [vzip1q_f32(a, a), vzip1q_f32(b, b)].map(|x| vreinterpretq_f64_f32(x));
        let high = [vzip2q_f32(a, a), vzip2q_f32(b, b)].map(|x| vreinterpretq_f64_f32(x));
        for (i, [a, b]) in [low, high].into_iter().enumerate() {
            vst1q_f32(to[2 * i].as_mut_ptr(), vreinterpretq_f32_f64(vzip1q_f64(a, b)));
            vst1q_f32(to[2 * i + 1].as_mut_ptr(), vreinterpretq_f32_f64(vzip2q_f64(a, b)));
        }
    }
}

/// Outputs of two tokens and `2 P` rows, those of them that are below `count` = (tokens, rows), from `at` = (token, row), where `w`
/// (`[pair][group]`) and `x` (`[token][group]`) start.
#[inline(never)]
#[target_feature(enable = "neon,i8mm")]
unsafe fn tile<F: Weights, const P: usize>(
    p: &Product<'_>,
    w: *const Pair,
    x: [*const Group; 2],
    at: (usize, usize),
    count: (usize, usize),
    out: &mut Tile<'_, f32>,
) {
    let per_row = p.cols.div_ceil(GROUP);
    let mut totals = [vdupq_n_f32(0.0); P];
    for g in 0..per_row {
        // SAFETY: the instructions are there; every row and token has this group.
        unsafe {
            let (w, x) = (w.add(g), [&*x[0].add(g), &*x[1].add(g)]);
            let mut sums = [[vdupq_n_f32(0.0); 4]; P];
            for i in 0..fours::<F>(blocks::<F>(p.cols, g)) {
                for lane in 0..4 {
                    let s = 4 * i + lane;
                    let dots = dots::<F, P>(w, per_row, x, s);
                    for pair in 0..P {
                        let scale = vld1q_f32((*w.add(pair * per_row)).scale[s].as_ptr());
                        sums[pair][lane] = vfmaq_f32(sums[pair][lane], vcvtq_f32_s32(dots[pair]), scale);
                    }
                }
            }
            for i in 0..F::OFFSETS / 4 {
                let from = |x: &Group| if F::OFFSETS == 8 { x.sums32.as_ptr() } else { x.sums16.as_ptr() };
                let [a, b] = x.map(|x| vld1q_f32(from(x).add(4 * i)));
                let [low, high] = [vzip1q_f32(a, b), vzip2q_f32(a, b)].map(|x| vreinterpretq_f64_f32(x));
                let both = [
                    vdupq_laneq_f64::<0>(low),
                    vdupq_laneq_f64::<1>(low),
                    vdupq_laneq_f64::<0>(high),
                    vdupq_laneq_f64::<1>(high),
                ];
                for lane in 0..4 {
                    let x = vreinterpretq_f32_f64(both[lane]);
                    for pair in 0..P {
                        let offset = vld1q_f32((*w.add(pair * per_row)).offset[4 * i + lane].as_ptr());
                        sums[pair][lane] = vfmaq_f32(sums[pair][lane], offset, x);
                    }
                }
            }
            let [a, b] = x.map(|x| vdupq_n_f32(x.scales[0]));
            let scale = vzip1q_f32(a, b);
            for pair in 0..P {
                let [a, b, c, d] = sums[pair];
                let group = vaddq_f32(vaddq_f32(a, b), vaddq_f32(c, d));
                totals[pair] = vfmaq_f32(totals[pair], scale, group);
            }
        }
    }
    for pair in 0..P {
        let mut lanes = [0.0; 4];
        // SAFETY: the array has four values.
        unsafe { vst1q_f32(lanes.as_mut_ptr(), totals[pair]) };
        for (i, value) in lanes.into_iter().enumerate() {
            let (r, t) = (2 * pair + i / 2, i % 2);
            if r < count.1 && t < count.0 {
                p.put(out, at.0 + t, at.1 + r, value);
            }
        }
    }
}

/// Products under scale `s` of `P` pairs of rows, `per_row` groups apart, with two tokens.
#[inline(always)]
unsafe fn dots<F: Weights, const P: usize>(
    w: *const Pair,
    per_row: usize,
    x: [&Group; 2],
    s: usize,
) -> [int32x4_t; P] {
    // 16 columns are a unit.
    let units = 2 * GROUP_LINES / F::SCALES;
    // SAFETY: the caller has the instructions and these groups.
    unsafe {
        let mut dots = [vdupq_n_s32(0); P];
        for plane in 0..2 {
            if plane == 1 {
                dots = dots.map(|x| vshlq_n_s32::<8>(x));
            }
            for unit in units * s..units * (s + 1) {
                let at = |x: &Group| x.planes[unit / 2].0[plane].as_ptr().add(16 * (unit % 2));
                let x = zipped(vld1q_s8(at(x[0])), vld1q_s8(at(x[1])));
                for pair in 0..P {
                    let w = &(*w.add(pair * per_row)).w;
                    dots[pair] = smmla(dots[pair], vld1q_s8(w[2 * unit].as_ptr()), x[0]);
                    dots[pair] = smmla(dots[pair], vld1q_s8(w[2 * unit + 1].as_ptr()), x[1]);
                }
            }
        }
        dots
    }
}

/// `sum + a b^T` of 2 x 8 matrices.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction is there.
    unsafe {
        asm!(
            "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}
