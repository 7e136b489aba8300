//! `value = d * q + m`: one scale and one offset per 32 values, both f16.

use cchaha_plan::Format;

use super::scaled::put_fifth_bits;
use super::search::{Affine, Lanes, Whole, assign, even, fit_affine, pick};
use super::{BlockEncoder, put_f16, put_nibbles, range, to_bytes, to_f16};
use crate::simd::{LANES, Simd};

const LEN: usize = 32;

/// Ranges to try: the values' own with `low` and `high` cut off or added, in steps.
#[inline(always)]
fn ranges<const N: usize>((low, high): (f32, f32), step: f32, cuts: &[(f32, f32)]) -> [(Lanes, Lanes); N] {
    std::array::from_fn(|vector| {
        let cut = |lane: usize| cuts[vector * LANES + lane];
        (
            std::array::from_fn(|lane| low + cut(lane).0 * step),
            std::array::from_fn(|lane| high - cut(lane).1 * step),
        )
    })
}

/// What is cut off below and above, in steps of the grid.
const CUTS: [(f32, f32); 16] = cuts();

const fn cuts() -> [(f32, f32); 16] {
    const AT: [f32; 4] = [-0.5, 0.0, 0.5, 1.0];
    let mut cuts = [(0.0, 0.0); 16];
    let mut i = 0;
    while i < 16 {
        cuts[i] = (AT[i / 4], AT[i % 4]);
        i += 1;
    }
    // Adding on both sides serves least.
    cuts[0] = (1.5, 1.5);
    cuts
}

/// The few that are tried where all values count the same.
const EVEN_CUTS: [(f32, f32); 8] =
    [(0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.5, 0.5), (-0.2, 0.5), (0.5, -0.2), (0.25, 0.25), (0.75, 0.75)];

/// The best scale and offset for values in `(low, high)`, see [`fit_affine`].
#[inline(always)]
pub(super) fn fit<S: Simd>(
    s: S,
    top: f32,
    x: &[f32],
    w: &[f32],
    (low, high): (f32, f32),
    below_zero: bool,
) -> Affine {
    let step = (high - low) / top;
    if even(w) {
        fit_affine(s, top, x, w, &ranges::<1>((low, high), step, &EVEN_CUTS), below_zero)
    } else {
        fit_affine(s, top, x, w, &ranges::<2>((low, high), step, &CUTS), below_zero)
    }
}

/// Scale and offset as f16, and the numbers of all values.
#[inline(always)]
fn encode<S: Simd>(s: S, top: f32, x: &[f32], w: &[f32], q: &mut [f32]) -> Affine {
    let (low, high) = range(s, x);
    let step = (high - low) / top;
    if step < f32::MIN_POSITIVE {
        q.fill(0.0);
        return Affine { scale: 0.0, offset: to_f16(low) };
    }
    let levels = Whole::new(s, 0.0, top);
    let fit = fit(s, top, x, w, (low, high), false);
    let (scale, offset) = (to_f16(fit.scale), to_f16(fit.offset));
    if even(w) {
        let affine = Affine { scale, offset };
        assign(s, levels, x, affine, q);
        return affine;
    }
    // Rounding to f16 may favour a neighbour: three offsets for each of two scales.
    let ulp = to_f16(offset.abs() * (1.0 / 1024.0));
    let other = to_f16(fit.scale + (fit.scale - scale).signum() * fit.scale * (1.0 / 1024.0));
    let scales = std::array::from_fn(|lane| if lane < 4 { scale } else { other });
    let offsets = std::array::from_fn(|lane| to_f16(offset + [0.0, ulp, -ulp, 0.0][lane % 4]));
    let (best, _) = pick(s, levels, x, w, &[(scales, offsets)]);
    assign(s, levels, x, best, q);
    best
}

/// See [`crate::formats::Q4_1`].
pub(crate) struct Q4_1;

impl BlockEncoder for Q4_1 {
    const FORMAT: Format = Format::Q4_1;

    #[inline(always)]
    fn block<S: Simd>(s: S, x: &[f32], w: &[f32], out: &mut [u8]) {
        let (mut q, mut bytes) = ([0.0; LEN], [0; LEN]);
        let affine = encode(s, 15.0, x, w, &mut q);
        to_bytes(&q, 0.0, &mut bytes);
        put_f16(out, 0, affine.scale);
        put_f16(out, 2, affine.offset);
        put_nibbles(&bytes, &mut out[4..20]);
    }
}

/// See [`crate::formats::Q5_1`].
pub(crate) struct Q5_1;

impl BlockEncoder for Q5_1 {
    const FORMAT: Format = Format::Q5_1;

    #[inline(always)]
    fn block<S: Simd>(s: S, x: &[f32], w: &[f32], out: &mut [u8]) {
        let (mut q, mut bytes) = ([0.0; LEN], [0; LEN]);
        let affine = encode(s, 31.0, x, w, &mut q);
        to_bytes(&q, 0.0, &mut bytes);
        put_f16(out, 0, affine.scale);
        put_f16(out, 2, affine.offset);
        put_fifth_bits(&bytes, &mut out[4..8]);
        put_nibbles(&bytes, &mut out[8..24]);
    }
}
