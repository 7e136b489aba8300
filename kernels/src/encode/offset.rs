//! `value = d * q + m`: one scale and one offset per 32 values, both f16.

use cchaha_plan::Format;

use super::scaled::put_fifth_bits;
use super::search::{Affine, Lanes, Whole, assign, fit_affine, pick};
use super::{BlockEncoder, put_f16, put_nibbles, range, to_bytes, to_f16};
use crate::simd::{LANES, Simd};

const LEN: usize = 32;

/// Ranges to try: the values' own with `low` and `high` cut off or added, in steps.
#[inline(always)]
pub(super) fn ranges<const N: usize>(
    (low, high): (f32, f32),
    step: f32,
    cuts: &[(f32, f32)],
) -> [(Lanes, Lanes); N] {
    std::array::from_fn(|vector| {
        let cut = |lane: usize| cuts[(vector * LANES + lane).min(cuts.len() - 1)];
        (
            std::array::from_fn(|lane| low + cut(lane).0 * step),
            std::array::from_fn(|lane| high - cut(lane).1 * step),
        )
    })
}

/// What is cut off below and above, in steps of the grid.
pub(super) const CUTS: [(f32, f32); 24] = cuts();

const fn cuts() -> [(f32, f32); 24] {
    const AT: [f32; 5] = [-0.4, 0.0, 0.35, 0.7, 1.1];
    let mut cuts = [(0.0, 0.0); 24];
    let mut i = 0;
    while i < 24 {
        cuts[i] = (AT[i / 5], AT[i % 5]);
        i += 1;
    }
    cuts
}

/// Scale and offset as f16, and the numbers of all values.
#[inline(always)]
fn encode<S: Simd>(s: S, top: f32, x: &[f32], w: &[f32], q: &mut [f32]) -> Affine {
    let (low, high) = range(x);
    let step = (high - low) / top;
    if step < f32::MIN_POSITIVE {
        q.fill(0.0);
        return Affine { scale: 0.0, offset: to_f16(low) };
    }
    let levels = Whole::new(s, 0.0, top);
    let fit = fit_affine(s, top, x, w, &ranges::<3>((low, high), step, &CUTS), false);
    // Rounding to f16 may favour a neighbour: three offsets for each of two scales.
    let (scale, offset) = (to_f16(fit.scale), to_f16(fit.offset));
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
