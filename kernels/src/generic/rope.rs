//! Turns the rotary pairs of every head of a row: `(a, b) -> (a cos - b sin, a sin + b cos)`.
//!
//! The angles of a batch are computed once per table (in f64, see `cpu/rotary.rs`) and serve all layers.

use cchaha_plan::RopeLayout;

use crate::simd::{LANES, Simd};

/// `cos` and `sin` of one token, one value per pair, the magnitude folded in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Angles<'a> {
    pub(crate) cos: &'a [f32],
    pub(crate) sin: &'a [f32],
    pub(crate) layout: RopeLayout,
}

/// Turns every head of a row.
#[inline(always)]
pub(crate) fn rope<S: Simd>(s: S, angles: Angles<'_>, head_dim: usize, x: &mut [f32]) {
    let pairs = angles.cos.len();
    for head in x.chunks_exact_mut(head_dim) {
        match angles.layout {
            RopeLayout::Interleaved => {
                let turning = head.as_chunks_mut::<2>().0.iter_mut();
                for ((pair, &cos), &sin) in turning.zip(angles.cos).zip(angles.sin) {
                    let [a, b] = *pair;
                    *pair = [a * cos - b * sin, a * sin + b * cos];
                }
            }
            RopeLayout::Halves => {
                let (first, rest) = head.split_at_mut(pairs);
                halves(s, first, &mut rest[..pairs], angles.cos, angles.sin);
            }
        }
    }
}

#[inline(always)]
fn halves<S: Simd>(s: S, a: &mut [f32], b: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (a8, a1) = a.as_chunks_mut::<LANES>();
    let (b8, b1) = b.as_chunks_mut::<LANES>();
    let (cos8, cos1) = cos.as_chunks::<LANES>();
    let (sin8, sin1) = sin.as_chunks::<LANES>();
    for (((a, b), cos), sin) in a8.iter_mut().zip(b8).zip(cos8).zip(sin8) {
        let (x, y, cos, sin) = (s.load(a), s.load(b), s.load(cos), s.load(sin));
        s.store(s.sub(s.mul(x, cos), s.mul(y, sin)), a);
        s.store(s.add(s.mul(x, sin), s.mul(y, cos)), b);
    }
    for (((a, b), &cos), &sin) in a1.iter_mut().zip(b1).zip(cos1).zip(sin1) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}
