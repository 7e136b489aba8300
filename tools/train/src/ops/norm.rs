//! RMSNorm (Zhang and Sennrich 2019) of rows, or of every head: `y = w x / sqrt(mean(x^2) + eps)`.

use cchaha::kernels::{Pool, vectorized};

use super::piece_rows;
use crate::real::{Real, sum2};

/// Normalizes rows of `w.len()` values; keeps `1 / rms` of each for the way back.
pub fn forward<T: Real>(pool: &Pool, eps: T, x: &[T], w: &[T], y: &mut [T], inverse_rms: &mut [T]) {
    let width = w.len();
    let rows = piece_rows(width);
    let pieces = x.chunks(rows * width).zip(y.chunks_mut(rows * width)).zip(inverse_rms.chunks_mut(rows));
    pool.each(pieces, |((x, y), inverse_rms)| {
        vectorized(|| forward_rows(eps, x, w, y, inverse_rms));
    });
}

#[inline(always)]
fn forward_rows<T: Real>(eps: T, x: &[T], w: &[T], y: &mut [T], inverse_rms: &mut [T]) {
    let width = w.len();
    for ((x, y), inverse) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(inverse_rms) {
        let mean = sum2(x, x, |a, b| a * b) / T::of(width as f64);
        *inverse = T::ONE / (mean + eps).sqrt();
        for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
            *y = x * *inverse * w;
        }
    }
}

/// What goes back through a norm.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Backward<'a, T> {
    pub x: &'a [T],
    pub w: &'a [T],
    pub inverse_rms: &'a [T],
    pub dy: &'a [T],
}

impl<T: Real> Backward<'_, T> {
    /// `dx += dL/dx`, `dw += dL/dw`.
    pub fn add_to(&self, pool: &Pool, dx: &mut [T], dw: &mut [T]) {
        self.run(pool, dx, dw, true);
    }

    /// `dx = dL/dx`, `dw += dL/dw`.
    pub fn write_to(&self, pool: &Pool, dx: &mut [T], dw: &mut [T]) {
        self.run(pool, dx, dw, false);
    }

    fn run(&self, pool: &Pool, dx: &mut [T], dw: &mut [T], add: bool) {
        let width = self.w.len();
        let rows = piece_rows(width);
        // One partial sum of dw per piece, added in order: the same for any number of threads.
        let mut partial = vec![T::ZERO; self.inverse_rms.len().div_ceil(rows) * width];
        let n = rows * width;
        let given = self.x.chunks(n).zip(self.dy.chunks(n)).zip(self.inverse_rms.chunks(rows));
        let pieces = given.zip(dx.chunks_mut(n)).zip(partial.chunks_mut(width));
        pool.each(pieces, |((((x, dy), inverse_rms), dx), dw)| {
            vectorized(|| backward_rows(x, self.w, inverse_rms, dy, dx, dw, add));
        });
        for partial in partial.chunks(width) {
            dw.iter_mut().zip(partial).for_each(|(dw, &d)| *dw += d);
        }
    }
}

/// With `n = x / rms`: `dn = w dy`, `dx = (dn - n mean(n dn)) / rms`.
#[inline(always)]
fn backward_rows<T: Real>(
    x: &[T],
    w: &[T],
    inverse_rms: &[T],
    dy: &[T],
    dx: &mut [T],
    dw: &mut [T],
    add: bool,
) {
    let width = w.len();
    let rows = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
    for (((x, dy), dx), &inverse) in rows.zip(inverse_rms) {
        for ((dw, &dy), &x) in dw.iter_mut().zip(dy).zip(x) {
            *dw += dy * x * inverse;
        }
        // mean(n dn) = inverse * mean(x w dy); the products are made in dx's place where that is free.
        let mut product = T::ZERO;
        let mut start = 0;
        while start < width {
            let end = (start + 256).min(width);
            let mut scaled = [T::ZERO; 256];
            for ((s, &w), &dy) in scaled.iter_mut().zip(&w[start..end]).zip(&dy[start..end]) {
                *s = w * dy;
            }
            product += sum2(&x[start..end], &scaled[..end - start], |a, b| a * b);
            start = end;
        }
        let mean = product * inverse / T::of(width as f64);
        for (((dx, &w), &dy), &x) in dx.iter_mut().zip(w).zip(dy).zip(x) {
            let d = inverse * (w * dy - x * inverse * mean);
            *dx = if add { *dx + d } else { d };
        }
    }
}
