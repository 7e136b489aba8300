//! RMS and layer normalization of groups of a row.
//!
//! ```text
//! rms:    y = x / sqrt(mean(x^2) + eps) * w (+ b)
//! layer:  y = (x - mean) / sqrt(mean((x - mean)^2) + eps) * w (+ b)     two passes: no cancellation
//! ```
//! Sums run in 32 f32 partial sums of `n / 32` terms each: the relative error of the sum of squares stays below
//! `(n / 32 + 5) * 2^-24`, 1.6e-5 at n = 8192, and half of that after the root.

use cchaha_plan::NormKind;

use super::elementwise::Input;
use crate::math::{load_at, map};
use crate::simd::Simd;

/// What a norm does to every group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormArgs<'a> {
    pub(crate) kind: NormKind,
    pub(crate) eps: f32,
    /// `[group]`.
    pub(crate) weight: &'a [f32],
    /// `[group]`.
    pub(crate) bias: Option<&'a [f32]>,
}

/// Normalizes every group of a row.
#[inline(always)]
pub(crate) fn norm<S: Simd>(s: S, args: &NormArgs<'_>, x: Input<'_>, out: &mut [f32]) {
    let group = args.weight.len();
    if let Input::Row(row) = x {
        out.copy_from_slice(row);
    }
    for run in out.chunks_exact_mut(group) {
        let n = group as f32;
        if args.kind == NormKind::Layer {
            let mean = fold(s, run, |sum, x| s.add(sum, x)) / n;
            map!(s, run, |_, x| s.sub(x, s.splat(mean)));
        }
        let variance = fold(s, run, |sum, x| s.fma(x, x, sum)) / n;
        let factor = s.splat(1.0 / (variance + args.eps).sqrt());
        map!(s, run, |at, x| {
            let y = s.mul(s.mul(x, factor), load_at(s, args.weight, at));
            match args.bias {
                None => y,
                Some(bias) => s.add(y, load_at(s, bias, at)),
            }
        });
    }
}

#[inline(always)]
fn fold<S: Simd>(s: S, x: &[f32], mut f: impl FnMut(S::V, S::V) -> S::V) -> f32 {
    let mut sums = [s.splat(0.0); 4];
    let (chunks, tail) = x.as_chunks::<8>();
    for (i, chunk) in chunks.iter().enumerate() {
        sums[i % 4] = f(sums[i % 4], s.load(chunk));
    }
    sums[0] = f(sums[0], s.load_tail(tail));
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}
