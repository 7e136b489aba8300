//! `value = d * level`: one scale per 32 values.

use cchaha_plan::Format;

use super::search::{Affine, Code, Lanes, Levels, Whole, assign, even, fit_scale, pick};
use super::{BlockEncoder, extreme, put_f16, put_nibbles, to_bytes, to_f16};
use crate::formats::{CODEBOOK, E2M1_DOUBLED, half_scale};
use crate::simd::{LANES, Simd};

/// Values of a block.
const LEN: usize = 32;

/// Steps around the natural one, `extreme / lowest level`, that are tried: those that stretch the levels a little,
/// where the extreme is cut off, and those that use fewer of them.
#[inline(always)]
pub(super) fn steps<const N: usize>(extreme: f32, ends: [f32; 2], from: f32, to: f32) -> [Lanes; N] {
    let per_end = N * LANES / 2;
    std::array::from_fn(|vector| {
        std::array::from_fn(|lane| {
            let i = vector * LANES + lane;
            let at = (i % per_end) as f32 / (per_end - 1) as f32;
            ends[i / per_end] * (from + (to - from) * at) / extreme
        })
    })
}

/// The best f16 scale for these levels, whose extremes are `ends`, and the levels of all values.
#[inline(always)]
fn encode<S: Simd, L: Levels<S>>(
    s: S,
    levels: L,
    ends: [f32; 2],
    x: &[f32],
    w: &[f32],
    q: &mut [f32],
) -> f32 {
    let extreme = extreme(s, x);
    if extreme == 0.0 {
        q.fill(0.0);
        return 0.0;
    }
    let scale = to_f16(if even(w) {
        fit_scale(s, levels, x, w, &steps::<1>(extreme, ends, 0.85, 1.12))
    } else {
        fit_scale(s, levels, x, w, &steps::<4>(extreme, ends, 0.75, 1.25))
    });
    assign(s, levels, x, Affine { scale, offset: 0.0 }, q);
    scale
}

/// See [`crate::formats::Q4_0`].
pub(crate) struct Q4_0;

impl BlockEncoder for Q4_0 {
    const FORMAT: Format = Format::Q4_0;

    #[inline(always)]
    fn block<S: Simd>(s: S, x: &[f32], w: &[f32], out: &mut [u8]) {
        let (mut q, mut bytes) = ([0.0; LEN], [0; LEN]);
        let d = encode(s, Whole::new(s, -8.0, 7.0), [-8.0, 7.0], x, w, &mut q);
        to_bytes(&q, 8.0, &mut bytes);
        put_f16(out, 0, d);
        put_nibbles(&bytes, &mut out[2..18]);
    }
}

/// See [`crate::formats::Q5_0`].
pub(crate) struct Q5_0;

impl BlockEncoder for Q5_0 {
    const FORMAT: Format = Format::Q5_0;

    #[inline(always)]
    fn block<S: Simd>(s: S, x: &[f32], w: &[f32], out: &mut [u8]) {
        let (mut q, mut bytes) = ([0.0; LEN], [0; LEN]);
        let d = encode(s, Whole::new(s, -16.0, 15.0), [-16.0, 15.0], x, w, &mut q);
        to_bytes(&q, 16.0, &mut bytes);
        put_f16(out, 0, d);
        put_fifth_bits(&bytes, &mut out[2..6]);
        put_nibbles(&bytes, &mut out[6..22]);
    }
}

/// Bit 4 of 32 numbers, one bit each.
#[inline(always)]
pub(super) fn put_fifth_bits(q: &[u8], out: &mut [u8]) {
    for (q, out) in q.chunks_exact(8).zip(out) {
        *out = q.iter().enumerate().fold(0, |byte, (i, q)| byte | (q >> 4 & 1) << i);
    }
}

/// See [`crate::formats::Q8_0`]. The scale lays the extreme on 127 and values take their nearest multiple of the scale as
/// stored: at 8 bits a search gains less than a thousandth.
pub(crate) struct Q8_0;

impl BlockEncoder for Q8_0 {
    const FORMAT: Format = Format::Q8_0;

    #[inline(always)]
    fn block<S: Simd>(s: S, x: &[f32], _: &[f32], out: &mut [u8]) {
        let mut largest = s.splat(0.0);
        for x in x.as_chunks::<LANES>().0 {
            let x = s.load(x);
            largest = s.max(largest, s.max(x, s.sub(s.splat(0.0), x)));
        }
        let scale = to_f16(s.largest(largest) / 127.0);
        let mut q = [0.0; LEN];
        assign(s, Whole::new(s, -127.0, 127.0), x, Affine { scale, offset: 0.0 }, &mut q);
        put_f16(out, 0, scale);
        to_bytes(&q, 0.0, &mut out[2..34]);
    }
}

/// The levels of IQ4_NL and IQ4_XS.
#[inline(always)]
pub(super) fn codebook() -> Code<16> {
    Code::new(CODEBOOK.map(f32::from))
}

/// Where each level stands in the codebook.
#[inline(always)]
pub(super) fn to_indices(levels: &[f32], out: &mut [u8]) {
    for (out, level) in out.iter_mut().zip(levels) {
        *out = CODEBOOK.iter().fold(0, |below, &code| below + u8::from(f32::from(code) < *level));
    }
}

/// See [`crate::formats::Iq4Nl`].
pub(crate) struct Iq4Nl;

impl BlockEncoder for Iq4Nl {
    const FORMAT: Format = Format::IQ4_NL;

    #[inline(always)]
    fn block<S: Simd>(s: S, x: &[f32], w: &[f32], out: &mut [u8]) {
        let (mut q, mut bytes) = ([0.0; LEN], [0; LEN]);
        let d = encode(s, codebook(), [-127.0, 113.0], x, w, &mut q);
        to_indices(&q, &mut bytes);
        put_f16(out, 0, d);
        put_nibbles(&bytes, &mut out[2..18]);
    }
}

/// See [`crate::formats::Mxfp4`].
pub(crate) struct Mxfp4;

/// The levels of MXFP4, doubled and in order.
const E2M1: [f32; 15] = [-12.0, -8.0, -6.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0];

impl BlockEncoder for Mxfp4 {
    const FORMAT: Format = Format::MXFP4;

    /// The specification takes the exponent of the extreme; here that and its neighbours are tried.
    #[inline(always)]
    fn block<S: Simd>(s: S, x: &[f32], w: &[f32], out: &mut [u8]) {
        let extreme = extreme(s, x).abs();
        if extreme == 0.0 {
            out.fill(0);
            return;
        }
        // half_scale(e) = 2^(e - 128), and the levels end at 12 < 2^4.
        let natural = (extreme.to_bits() >> 23) as i32 - 127 + 128 - 3;
        let exponent = |lane: usize| (natural - 4 + lane as i32).clamp(0, 254) as u8;
        let candidates = [(std::array::from_fn(|lane| half_scale(exponent(lane))), [0.0; LANES])];
        let levels = Code::new(E2M1);
        let (best, _) = pick(s, levels, x, w, &candidates);
        let lane = candidates[0].0.iter().position(|&scale| scale == best.scale).unwrap_or(0);
        let mut q = [0.0; LEN];
        assign(s, levels, x, best, &mut q);
        let bytes: [u8; LEN] = q.map(|q| {
            let code = E2M1_DOUBLED.iter().position(|&level| f32::from(level) == q);
            code.expect("invariant: assign gives levels") as u8
        });
        out[0] = exponent(lane);
        put_nibbles(&bytes, &mut out[1..17]);
    }
}
