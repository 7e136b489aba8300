//! The numbers everything is written over: f32 to train, f64 to check gradients by finite differences.

use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub};

use cchaha::kernels::{self, Matrix, Pool};

/// Lanes of the sums that are kept side by side, so that the compiler may use vectors for them. Part of the results.
const LANES: usize = 16;

/// A floating-point number.
pub trait Real:
    Copy
    + Send
    + Sync
    + Default
    + Debug
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + MulAssign
    + Sum
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;

    /// The nearest number.
    fn of(x: f64) -> Self;
    /// Exactly this number.
    fn f64(self) -> f64;
    /// Square root.
    fn sqrt(self) -> Self;
    /// `e^x`; nothing below -87.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// The larger one; `other` where `self` is NaN.
    fn max(self, other: Self) -> Self;

    /// `c (+)= a b` on all threads.
    fn gemm(pool: &Pool, a: View<'_, Self>, b: View<'_, Self>, c: &mut [Self], accumulate: bool);
    /// `c (+)= a b` on this thread.
    fn gemm_here(a: View<'_, Self>, b: View<'_, Self>, c: &mut [Self], accumulate: bool);
}

/// A matrix in memory, as it is or transposed.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    transposed: bool,
}

impl<'a, T: Copy> View<'a, T> {
    /// `rows` rows of `cols` values.
    ///
    /// # Panics
    /// Where `data` has another length.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> View<'a, T> {
        assert_eq!(data.len(), rows * cols, "a matrix has rows times columns values");
        View { data, rows, cols, transposed: false }
    }

    /// Rows and columns exchanged; nothing moves.
    #[must_use]
    pub fn t(self) -> View<'a, T> {
        View { rows: self.cols, cols: self.rows, transposed: !self.transposed, ..self }
    }

    fn at(&self, i: usize, j: usize) -> T {
        if self.transposed { self.data[j * self.rows + i] } else { self.data[i * self.cols + j] }
    }
}

impl<'a> From<View<'a, f32>> for Matrix<'a> {
    fn from(view: View<'a, f32>) -> Matrix<'a> {
        if view.transposed {
            Matrix::new(view.data, view.cols, view.rows).t()
        } else {
            Matrix::new(view.data, view.rows, view.cols)
        }
    }
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;

    #[inline(always)]
    fn of(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }

    /// Without branches, so that loops over it become vectors: `2^n p(r)` with `x = n ln 2 + r`, `|r| <= ln 2 / 2`, the Taylor
    /// series to degree 6 (its remainder is 1.2e-7 relative), `n` rounded by adding 1.5 * 2^23, whose last bits then hold it.
    #[inline(always)]
    fn exp(self) -> f32 {
        const ROUND: f32 = 12_582_912.0;
        let x = if self > 88.0 { 88.0 } else { self };
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
        let mut p = 1.0 / 720.0;
        for c in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = p * r + c;
        }
        let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
        if x < -87.0 { 0.0 } else { p * power }
    }
    #[inline(always)]
    fn ln(self) -> f32 {
        f32::ln(self)
    }
    #[inline(always)]
    fn max(self, other: f32) -> f32 {
        if self > other { self } else { other }
    }

    fn gemm(pool: &Pool, a: View<'_, f32>, b: View<'_, f32>, c: &mut [f32], accumulate: bool) {
        kernels::gemm(pool, a.into(), b.into(), c, accumulate);
    }
    fn gemm_here(a: View<'_, f32>, b: View<'_, f32>, c: &mut [f32], accumulate: bool) {
        kernels::gemm_here(a.into(), b.into(), c, accumulate);
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;

    fn of(x: f64) -> f64 {
        x
    }
    fn f64(self) -> f64 {
        self
    }
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    fn ln(self) -> f64 {
        f64::ln(self)
    }
    fn max(self, other: f64) -> f64 {
        f64::max(self, other)
    }

    fn gemm(_: &Pool, a: View<'_, f64>, b: View<'_, f64>, c: &mut [f64], accumulate: bool) {
        Self::gemm_here(a, b, c, accumulate);
    }
    fn gemm_here(a: View<'_, f64>, b: View<'_, f64>, c: &mut [f64], accumulate: bool) {
        assert!(a.cols == b.rows && c.len() == a.rows * b.cols, "shapes fit");
        for (i, row) in c.chunks_mut(b.cols.max(1)).enumerate() {
            for (j, c) in row.iter_mut().enumerate() {
                let product: f64 = (0..a.cols).map(|k| a.at(i, k) * b.at(k, j)).sum();
                *c = if accumulate { *c + product } else { product };
            }
        }
    }
}

/// `sum_i f(a_i, b_i)`, in lanes.
#[inline(always)]
pub(crate) fn sum2<T: Real>(a: &[T], b: &[T], f: impl Fn(T, T) -> T) -> T {
    let mut sums = [T::ZERO; LANES];
    let (a, a_tail) = a.as_chunks::<LANES>();
    let (b, b_tail) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            sums[i] += f(a[i], b[i]);
        }
    }
    for (sum, (&a, &b)) in sums.iter_mut().zip(a_tail.iter().zip(b_tail)) {
        *sum += f(a, b);
    }
    let mut n = LANES / 2;
    while n > 0 {
        for i in 0..n {
            sums[i] += sums[i + n];
        }
        n /= 2;
    }
    sums[0]
}

/// The largest value, negative infinity of none.
#[inline(always)]
pub(crate) fn largest<T: Real>(x: &[T]) -> T {
    let mut most = [T::of(f64::NEG_INFINITY); LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            most[i] = chunk[i].max(most[i]);
        }
    }
    most.into_iter().chain(tail.iter().copied()).fold(T::of(f64::NEG_INFINITY), |a, b| b.max(a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_a_few_parts_in_ten_million() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            assert!((f64::from(Real::exp(x)) / exact - 1.0).abs() < 4e-7, "{x}");
        }
        assert_eq!(Real::exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(Real::exp(-1e30f32), 0.0);
        assert_eq!(Real::exp(0f32), 1.0);
    }
}
