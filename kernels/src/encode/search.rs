//! The two searches every encoder is made of, eight candidates at a time.
//!
//! Lanes hold candidates, not values: a value is broadcast, every lane rounds it its own way and adds to its own sums,
//! so nothing is summed across lanes and the least-squares solution of all candidates is one vector expression.
//!
//! ```text
//! fit    float parameters: round by a candidate step, then the best scale (and offset) for those integers
//! pick   parameters as the format stores them: the exact error of each, the smallest wins
//! ```
//!
//! Multiplications and additions are never fused here, so that every machine makes the same bytes.

use crate::simd::{LANES, Simd};

/// One vector of candidates.
pub(super) type Lanes = [f32; LANES];

/// The numbers a format can multiply its scale with.
pub(super) trait Levels<S: Simd>: Copy {
    /// The level nearest to each lane.
    fn nearest(self, s: S, v: S::V) -> S::V;
}

/// Whole numbers from `lo` to `hi`.
#[derive(Clone, Copy)]
pub(super) struct Whole<S: Simd> {
    lo: S::V,
    hi: S::V,
}

impl<S: Simd> Whole<S> {
    #[inline(always)]
    pub(super) fn new(s: S, lo: f32, hi: f32) -> Whole<S> {
        Whole { lo: s.splat(lo), hi: s.splat(hi) }
    }
}

impl<S: Simd> Levels<S> for Whole<S> {
    #[inline(always)]
    fn nearest(self, s: S, v: S::V) -> S::V {
        s.min(s.max(s.round(v), self.lo), self.hi)
    }
}

/// Any rising list of numbers.
#[derive(Clone, Copy)]
pub(super) struct Code<const N: usize> {
    levels: [f32; N],
}

impl<const N: usize> Code<N> {
    pub(super) fn new(levels: [f32; N]) -> Code<N> {
        Code { levels }
    }
}

impl<S: Simd, const N: usize> Levels<S> for Code<N> {
    /// Walks up: each midpoint that is passed adds the distance to the next level.
    #[inline(always)]
    fn nearest(self, s: S, v: S::V) -> S::V {
        let mut level = s.splat(self.levels[0]);
        for pair in self.levels.windows(2) {
            let middle = s.splat(0.5 * (pair[0] + pair[1]));
            level = s.select_lt(middle, v, s.splat(pair[1]), level);
        }
        level
    }
}

/// A scale and an offset, `x = scale * q + offset`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Affine {
    pub(super) scale: f32,
    pub(super) offset: f32,
}

/// The candidate with the smallest error so far, per lane.
#[derive(Clone, Copy)]
struct Best<S: Simd> {
    error: S::V,
    scale: S::V,
    offset: S::V,
}

impl<S: Simd> Best<S> {
    #[inline(always)]
    fn new(s: S) -> Best<S> {
        Best { error: s.splat(f32::INFINITY), scale: s.splat(0.0), offset: s.splat(0.0) }
    }

    #[inline(always)]
    fn offer(&mut self, s: S, error: S::V, scale: S::V, offset: S::V) {
        self.scale = s.select_lt(error, self.error, scale, self.scale);
        self.offset = s.select_lt(error, self.error, offset, self.offset);
        self.error = s.select_lt(error, self.error, error, self.error);
    }

    /// The first lane with the smallest error.
    #[inline(always)]
    fn take(self, s: S) -> (Affine, f32) {
        let [mut error, mut scale, mut offset] = [[0.0; LANES]; 3];
        s.store(self.error, &mut error);
        s.store(self.scale, &mut scale);
        s.store(self.offset, &mut offset);
        let best = (1..LANES).fold(0, |best, i| if error[i] < error[best] { i } else { best });
        (Affine { scale: scale[best], offset: offset[best] }, error[best])
    }
}

/// Whether all values count the same. Then the error is so flat around its least that few candidates come as near to it
/// as many.
#[inline(always)]
pub(super) fn even(w: &[f32]) -> bool {
    w.iter().fold(true, |even, &each| even & (each == w[0]))
}

/// The scale of `x = scale * level` with the smallest error `sum w (x - scale * level)^2`: levels are chosen by each
/// candidate `1 / step` of `inverses`, the scale then by least squares.
#[inline(always)]
pub(super) fn fit_scale<S: Simd, L: Levels<S>>(
    s: S,
    levels: L,
    x: &[f32],
    w: &[f32],
    inverses: &[Lanes],
) -> f32 {
    let zero = s.splat(0.0);
    let mut best = Best::new(s);
    for i in 0..=inverses.len() {
        // Once more from where the best of each lane came to lie.
        let inverse = inverses.get(i).map_or_else(|| inverse(s, best.scale), |inverse| s.load(inverse));
        let (mut xq, mut qq) = (zero, zero);
        for (&x, &w) in x.iter().zip(w) {
            let x = s.splat(x);
            let q = levels.nearest(s, s.mul(x, inverse));
            let wq = s.mul(s.splat(w), q);
            xq = s.add(xq, s.mul(wq, x));
            qq = s.add(qq, s.mul(wq, q));
        }
        // With all levels zero nothing is gained, and the quotient would be NaN.
        let scale = s.select_lt(zero, qq, s.div(xq, qq), zero);
        let error = s.sub(zero, s.mul(scale, xq));
        best.offer(s, error, scale, zero);
    }
    best.take(s).0.scale
}

/// The scale and the offset of `x = scale * q + offset`, `q` whole from 0 to `top`, with the smallest weighted error.
/// Each candidate is the range `(lowest value, highest value)` that 0 and `top` are laid on before least squares;
/// with `below_zero` the offset is at most 0.
#[inline(always)]
pub(super) fn fit_affine<S: Simd>(
    s: S,
    top: f32,
    x: &[f32],
    w: &[f32],
    ranges: &[(Lanes, Lanes)],
    below_zero: bool,
) -> Affine {
    let zero = s.splat(0.0);
    let levels = Whole::new(s, 0.0, top);
    let (mut sum_w, mut sum_wx) = (zero, zero);
    for (x, w) in x.as_chunks().0.iter().zip(w.as_chunks().0) {
        let w = s.load(w);
        sum_w = s.add(sum_w, w);
        sum_wx = s.add(sum_wx, s.mul(w, s.load(x)));
    }
    // Around the mean, so that a large common offset does not cost precision.
    let sum_w = s.sum(sum_w);
    let mean = s.sum(sum_wx) / sum_w;
    let sum_w = s.splat(sum_w);
    let mean_v = s.splat(mean);
    let mut best = Best::new(s);
    for i in 0..=ranges.len() {
        // Once more from where the best of each lane came to lie.
        let (low, inverse) = match ranges.get(i) {
            Some((low, high)) => {
                let low = s.load(low);
                (low, s.div(s.splat(top), s.sub(s.load(high), low)))
            }
            None => (best.offset, inverse(s, best.scale)),
        };
        let (mut wq_sum, mut qq, mut yq) = (zero, zero, zero);
        for (&x, &w) in x.iter().zip(w) {
            let q = levels.nearest(s, s.mul(s.sub(s.splat(x), low), inverse));
            let wq = s.mul(s.splat(w), q);
            wq_sum = s.add(wq_sum, wq);
            qq = s.add(qq, s.mul(wq, q));
            yq = s.add(yq, s.mul(wq, s.splat(x - mean)));
        }
        let q_mean = s.div(wq_sum, sum_w);
        let spread = s.sub(qq, s.mul(wq_sum, q_mean));
        let scale = s.select_lt(zero, spread, s.div(yq, spread), zero);
        let offset = s.sub(mean_v, s.mul(scale, q_mean));
        let error = s.sub(zero, s.mul(scale, yq));
        if below_zero {
            // Where the offset would be positive it is 0; then the best scale is sum wxq / sum wqq. Its error counts
            // from the same base, the weighted variance, as the other's.
            let xq = s.add(yq, s.mul(mean_v, wq_sum));
            let plain = s.select_lt(zero, qq, s.div(xq, qq), zero);
            let base = s.mul(s.mul(mean_v, mean_v), sum_w);
            let plain_error = s.sub(base, s.mul(plain, xq));
            let scale = s.select_lt(zero, offset, plain, scale);
            let error = s.select_lt(zero, offset, plain_error, error);
            best.offer(s, error, scale, s.select_lt(zero, offset, zero, offset));
        } else {
            best.offer(s, error, scale, offset);
        }
    }
    best.take(s).0
}

/// The candidate `(scale, offset)` with the smallest weighted error, and that error. Each value takes its nearest level.
#[inline(always)]
pub(super) fn pick<S: Simd, L: Levels<S>>(
    s: S,
    levels: L,
    x: &[f32],
    w: &[f32],
    candidates: &[(Lanes, Lanes)],
) -> (Affine, f32) {
    let zero = s.splat(0.0);
    let mut best = Best::new(s);
    for (scale, offset) in candidates {
        let (scale, offset) = (s.load(scale), s.load(offset));
        let inverse = inverse(s, scale);
        let mut error = zero;
        for (&x, &w) in x.iter().zip(w) {
            let x = s.splat(x);
            let q = levels.nearest(s, s.mul(s.sub(x, offset), inverse));
            let rest = s.sub(x, s.add(s.mul(scale, q), offset));
            error = s.add(error, s.mul(s.splat(w), s.mul(rest, rest)));
        }
        best.offer(s, error, scale, offset);
    }
    best.take(s)
}

/// `1 / scale`, and 0 for 0 and for what is so small that its inverse is infinite.
#[inline(always)]
fn inverse<S: Simd>(s: S, scale: S::V) -> S::V {
    let tiny = s.splat(f32::MIN_POSITIVE);
    let size = s.max(scale, s.sub(s.splat(0.0), scale));
    s.select_lt(size, tiny, s.splat(0.0), s.div(s.splat(1.0), scale))
}

/// The levels nearest to the values, for the final parameters: the same arithmetic as [`pick`].
#[inline(always)]
pub(super) fn assign<S: Simd, L: Levels<S>>(s: S, levels: L, x: &[f32], affine: Affine, q: &mut [f32]) {
    let (offset, inverse) = (s.splat(affine.offset), inverse(s, s.splat(affine.scale)));
    for (x, q) in x.as_chunks::<LANES>().0.iter().zip(q.as_chunks_mut::<LANES>().0) {
        s.store(levels.nearest(s, s.mul(s.sub(s.load(x), offset), inverse)), q);
    }
}
