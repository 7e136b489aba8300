//! Activate, Add, Scale, Softcap: one pass over a row each.

use cchaha_plan::Activation;

use crate::math::{activation, load_at, map, tanh};
use crate::simd::Simd;

/// An input that may be the output's own buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Input<'a> {
    /// What `out` holds.
    Out,
    /// Another row, as long as `out`.
    Row(&'a [f32]),
}

impl Input<'_> {
    #[inline(always)]
    fn at<S: Simd>(self, s: S, at: usize, out: S::V) -> S::V {
        match self {
            Input::Out => out,
            Input::Row(row) => load_at(s, row, at),
        }
    }
}

/// `out = activation(x) [* up]`.
#[inline(always)]
pub(crate) fn activate<S: Simd>(
    s: S,
    kind: Activation,
    x: Input<'_>,
    up: Option<Input<'_>>,
    out: &mut [f32],
) {
    map!(s, out, |at, old| {
        let y = activation(s, kind, x.at(s, at, old));
        match up {
            None => y,
            Some(up) => s.mul(y, up.at(s, at, old)),
        }
    });
}

/// `out = a + b`.
#[inline(always)]
pub(crate) fn add<S: Simd>(s: S, a: Input<'_>, b: Input<'_>, out: &mut [f32]) {
    map!(s, out, |at, old| s.add(a.at(s, at, old), b.at(s, at, old)));
}

/// `x *= factor`.
#[inline(always)]
pub(crate) fn scale<S: Simd>(s: S, factor: f32, x: &mut [f32]) {
    map!(s, x, |_, x| s.mul(x, s.splat(factor)));
}

/// `x = cap * tanh(x / cap)`.
#[inline(always)]
pub(crate) fn softcap<S: Simd>(s: S, cap: f32, x: &mut [f32]) {
    map!(s, x, |_, x| s.mul(s.splat(cap), tanh(s, s.div(x, s.splat(cap)))));
}
