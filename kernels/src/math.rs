//! exp, tanh and the activations, eight at a time.
//!
//! ```text
//! exp(x):  n = round(x / ln 2),  r = x - n ln 2 in two steps (|r| <= 0.347),  2^n * p(r)
//!          p = Taylor to degree 7: remainder r^8/8! <= 5.2e-9 relative, below half an ulp (6.0e-8)
//! ```
//! With the rounding of seven FMAs whose terms shrink by |r|/k, exp is within 2 ulp; the tests hold it to that.
//! Below -87.3 the result is 0 (so a masked score of -inf weighs exactly nothing), above 88.3 it stays at `exp(88.3)`;
//! NaN stays NaN. silu and gelu are `x / (1 + exp(-u))`: within 4 ulp plus exp's own where exp(-u) is large, at most
//! 4e-7 relative. tanh switches to its odd Taylor series below 1/4 where `1 - 2 / (exp(2x) + 1)` would cancel.

use cchaha_plan::Activation;

use crate::simd::Simd;

const LOWEST: f32 = -87.3;
const HIGHEST: f32 = 88.3;
/// ln 2 in two parts; the first has few enough bits that `n * LN2_HIGH` is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// `e^x`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let clamped = s.max(s.splat(LOWEST), s.min(s.splat(HIGHEST), x));
    let n = s.round(s.mul(clamped, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-LN2_HIGH), clamped);
    let r = s.fma(n, s.splat(-LN2_LOW), r);
    let mut p = s.splat(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = s.fma(p, r, s.splat(c));
    }
    s.select_lt(x, s.splat(LOWEST), s.splat(0.0), s.mul(p, s.exp2_whole(n)))
}

/// `tanh(x)`.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    let e = exp(s, s.add(x, x));
    let large = s.sub(one, s.div(s.splat(2.0), s.add(e, one)));
    let square = s.mul(x, x);
    let mut p = s.splat(62.0 / 2835.0);
    for c in [-17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0] {
        p = s.fma(p, square, s.splat(c));
    }
    s.select_lt(square, s.splat(1.0 / 16.0), s.mul(p, x), large)
}

/// `x / (1 + exp(-u))`.
#[inline(always)]
fn gated_by<S: Simd>(s: S, x: S::V, u: S::V) -> S::V {
    let e = exp(s, s.sub(s.splat(0.0), u));
    s.div(x, s.add(s.splat(1.0), e))
}

/// The nonlinearity of a feed-forward block.
#[inline(always)]
pub(crate) fn activation<S: Simd>(s: S, kind: Activation, x: S::V) -> S::V {
    match kind {
        Activation::Silu => gated_by(s, x, x),
        // (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)).
        Activation::GeluTanh => {
            let root = 2.0 * (2.0 / std::f32::consts::PI).sqrt();
            let cubic = s.fma(s.mul(x, x), s.splat(0.044_715 * root), s.splat(root));
            gated_by(s, x, s.mul(x, cubic))
        }
    }
}

/// `map!(s, out, |at, v| expression)`: replaces every eight values `v` of `out`, `at` being the offset of the first; the last ones
/// padded with zeros.
///
/// A macro and not a function of a closure: a closure does not inherit the instruction set of the function it stands in, and
/// where it is too long to be inlined every intrinsic in it becomes a call. That was 7% of decoding Qwen2.5-Coder-0.5B.
macro_rules! map {
    ($s:expr, $out:expr, |$at:pat_param, $v:ident| $value:expr) => {{
        let (chunks, tail) = $out.as_chunks_mut::<{ $crate::simd::LANES }>();
        let full = chunks.len() * $crate::simd::LANES;
        for (i, chunk) in chunks.iter_mut().enumerate() {
            let ($at, $v) = (i * $crate::simd::LANES, $s.load(chunk));
            $s.store($value, chunk);
        }
        if !tail.is_empty() {
            let ($at, $v) = (full, $s.load_tail(tail));
            $s.store_tail($value, tail);
        }
    }};
}
pub(crate) use map;

/// Eight values of `x` from `at`, zeros past its end.
#[inline(always)]
pub(crate) fn load_at<S: Simd>(s: S, x: &[f32], at: usize) -> S::V {
    match x[at..].first_chunk() {
        Some(chunk) => s.load(chunk),
        None => s.load_tail(&x[at..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{LANES, Portable};

    fn worst<S: Simd>(
        s: S,
        range: std::ops::Range<f32>,
        f: impl Fn(S, S::V) -> S::V,
        exact: impl Fn(f64) -> f64,
    ) -> f64 {
        let n = 200_000;
        let mut worst = 0.0f64;
        for i in 0..=n {
            let x = range.start + (range.end - range.start) * (i as f32 / n as f32);
            let mut y = [0.0; LANES];
            s.store(f(s, s.splat(x)), &mut y);
            let want = exact(f64::from(x));
            worst = worst.max((f64::from(y[3]) - want).abs() / want.abs().max(1e-37));
        }
        worst
    }

    fn bounds<S: Simd>(s: S) {
        // One ulp of the result is at most 2^-23 of it.
        let ulp = f64::from(f32::EPSILON);
        assert!(worst(s, -87.0..88.0, exp, f64::exp) <= 2.0 * ulp);
        assert!(worst(s, -9.0..9.0, tanh, f64::tanh) <= 4.0 * ulp);
        let silu = |x: f64| x / (1.0 + (-x).exp());
        assert!(worst(s, -80.0..80.0, |s, x| activation(s, Activation::Silu, x), silu) <= 4.0 * ulp);
        let gelu = |x: f64| {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            x / (1.0 + (-2.0 * u).exp())
        };
        // The argument's relative error of about two ulp is magnified by its size, here up to 2u = 19.
        assert!(worst(s, -5.0..5.0, |s, x| activation(s, Activation::GeluTanh, x), gelu) <= 45.0 * ulp);
        for (x, want) in [(f32::NEG_INFINITY, 0.0), (-200.0, 0.0), (0.0, 1.0)] {
            assert_eq!(s.sum(exp(s, s.splat(x))), 8.0 * want, "exp({x})");
        }
        assert!(s.sum(exp(s, s.splat(f32::NAN))).is_nan());
        assert!(s.sum(exp(s, s.splat(f32::INFINITY))) > 1e38);
        assert!(s.sum(activation(s, Activation::Silu, s.splat(f32::NAN))).is_nan());
    }

    #[test]
    fn portable_functions_keep_their_bounds() {
        bounds(Portable);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn avx2_functions_keep_their_bounds() {
        if let Some(avx2) = crate::Avx2::new() {
            bounds(avx2);
        }
    }
    #[cfg(target_arch = "aarch64")]
    #[test]
    fn neon_functions_keep_their_bounds() {
        if let Some(neon) = crate::Neon::new() {
            bounds(neon);
        }
    }
}
