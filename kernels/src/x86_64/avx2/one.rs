//! One token: rows straight from the mapped file, one after the other; see `product.rs`.

use std::arch::x86_64::*;

use super::product::{Sides, X, scaled};
use super::runs::{spread, sum};
use super::spread::{Spread, offsets, scales};
use super::weights::ahead;
use crate::activations::{GROUP, GROUP_LINES, Group, Half, Planes};
use crate::pool::Tile;
use crate::product::Product;

/// # Safety
/// AVX2, FMA and F16C; rows and groups were checked.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn one<F: Spread>(p: &Product<'_>, x: X<'_>, token: usize, out: &mut Tile<'_, f32>) {
    for row in out.cols() {
        // SAFETY: the caller's promise.
        unsafe {
            let total = self::row::<F>(p.weights.as_ptr().add(row * p.row_bytes), p.cols, x);
            p.put(out, token, row, sum(total));
        }
    }
}

/// One row's product, by lanes.
///
/// # Safety
/// As for [`one`]; `w` is a row of so many columns.
#[inline(always)]
pub(super) unsafe fn row<F: Spread>(mut w: *const u8, cols: usize, x: X<'_>) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let mut total = _mm256_setzero_ps();
        for g in 0..cols / GROUP {
            total = step::<F, 8>(w, x, (g, 0), total);
            w = w.add(F::BYTES);
        }
        end::<F>(w, x, (cols / GROUP, 0), cols % GROUP / 32, total)
    }
}

/// Adds `runs` at the end of a row, which are no whole step and of which the first is run `from` of group `g`.
///
/// # Safety
/// As for [`one`]; `w` has these runs.
#[inline(always)]
pub(super) unsafe fn end<F: Spread>(
    w: *const u8,
    x: X<'_>,
    (g, from): (usize, usize),
    runs: usize,
    mut total: __m256,
) -> __m256 {
    let mut done = 0;
    macro_rules! steps {
        ($($n:literal)*) => {{ $(
            if runs & $n != 0 {
                // SAFETY: the caller's promise.
                total = unsafe { step::<F, $n>(w.add(done * F::FORMAT.block_bytes()), x, (g, from + done), total) };
                done += $n;
            }
        )* }};
    }
    steps!(4 2 1);
    let _ = done;
    total
}

/// Adds `N` runs, which begin at `w` and with run `first` of group `g`.
#[inline(always)]
unsafe fn step<F: Spread, const N: usize>(
    w: *const u8,
    x: X<'_>,
    (g, first): (usize, usize),
    total: __m256,
) -> __m256 {
    // SAFETY: the caller has the instructions and the runs.
    unsafe {
        ahead(w, F::BYTES);
        let head = F::head(w, N);
        let sides = Sides { scale: scales::<F, N>(&head), offset: offsets::<F>(&head) };
        let mut q = [_mm256_setzero_si256(); 8];
        // Spelled out: unpacking needs `b` as a constant, and the compiler does not unroll a body this long.
        macro_rules! runs {
            ($($b:literal)*) => {{ $(if $b < N { q[$b] = F::load(w, $b); })* }};
        }
        runs!(0 1 2 3 4 5 6 7);
        spread::<N>(&mut q);
        let x = One::of(x, g, first);
        let mut sums = Sums::new();
        macro_rules! vectors {
            ($($j:literal)*) => {{ $(if $j < N { sums.add::<F, N>(q[$j], &x, $j); })* }};
        }
        vectors!(0 1 2 3 4 5 6 7);
        let zero = if F::SIGNED { 0 } else { i32::from(F::ZERO) };
        let zeros = if N < 8 && zero != 0 { zeros::<F, N>(&x) } else { _mm256_setzero_si256() };
        scaled::<F, N>(sums.dots, sides, (x.group, first), (zero, zeros), total)
    }
}

/// The activations of a step.
pub(super) struct One<'a> {
    pub(super) group: &'a Group,
    planes: *const Planes,
    halves: [*const __m256i; 2],
}

impl<'a> One<'a> {
    /// From run `first` of group `g` on.
    ///
    /// # Panics
    /// Where there is no such group or run.
    #[inline(always)]
    pub(super) fn of(x: X<'a>, g: usize, first: usize) -> One<'a> {
        assert!(first < GROUP_LINES);
        One {
            group: &x.groups[g],
            planes: x.groups[g].planes[first..].as_ptr(),
            halves: x.halves.map(|half: &[Half]| half[g].0[first..].as_ptr().cast()),
        }
    }
}

/// Sums of one row over a step, lane by lane.
pub(super) struct Sums {
    /// Of products with upper and with lower bytes that are not in `dots` yet.
    words: [__m256i; 2],
    /// Of columns 0 to 15 and 16 to 31 of every run where a format has scales of both, else all in the first.
    pub(super) dots: [__m256i; 2],
}

/// Vectors whose products with bytes from -128 to 127 are added up in 16 bits.
const fn together<F: Spread>() -> usize {
    let fit = i16::MAX as usize / (2 * 128 * F::MOST as usize);
    let most = if F::HALVES { 4 } else { 8 };
    if fit < most { fit } else { most }
}

impl Sums {
    /// Of nothing.
    ///
    /// # Safety
    /// AVX2.
    #[inline(always)]
    pub(super) unsafe fn new() -> Sums {
        // SAFETY: the caller's promise.
        let zero = unsafe { [_mm256_setzero_si256(); 2] };
        Sums { words: zero, dots: zero }
    }

    /// Adds the products of vector `j` of `N`; `q` as [`super::weights::Weights::load`] gives it.
    ///
    /// # Safety
    /// AVX2, and the step has this vector.
    #[inline(always)]
    pub(super) unsafe fn add<F: Spread, const N: usize>(&mut self, q: __m256i, x: &One<'_>, j: usize) {
        // SAFETY: the caller's promise; planes are two aligned vectors.
        unsafe {
            let dot = &mut self.dots[if F::HALVES { j / 4 } else { 0 }];
            if F::SIGNED {
                // They would overflow vpmaddubsw.
                let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(q));
                let odd = _mm256_srai_epi16::<8>(q);
                let [x_even, x_odd] = x.halves.map(|half| _mm256_load_si256(half.add(j)));
                let products =
                    _mm256_add_epi32(_mm256_madd_epi16(even, x_even), _mm256_madd_epi16(odd, x_odd));
                *dot = if j == 0 { products } else { _mm256_add_epi32(*dot, products) };
                return;
            }
            let planes = x.planes.add(j).cast::<__m256i>();
            for plane in 0..2 {
                let products = _mm256_maddubs_epi16(q, _mm256_load_si256(planes.add(plane)));
                let words = &mut self.words[plane];
                *words = if j.is_multiple_of(together::<F>()) {
                    products
                } else {
                    _mm256_add_epi16(*words, products)
                };
            }
            if (j + 1).is_multiple_of(together::<F>()) || j + 1 == N {
                let upper = _mm256_madd_epi16(self.words[0], _mm256_set1_epi16(256));
                let lower = _mm256_madd_epi16(self.words[1], _mm256_set1_epi16(1));
                let products = _mm256_add_epi32(upper, lower);
                let first = j < together::<F>() || (F::HALVES && (4..4 + together::<F>()).contains(&j));
                *dot = if first { products } else { _mm256_add_epi32(*dot, products) };
            }
        }
    }
}

/// What [`Weights::ZERO`](super::weights::Weights::ZERO) adds to the sums of a step of `N` < 8 runs: lanes hold parts of runs, of which there
/// are no sums.
///
/// # Safety
/// AVX2, and the step has so many vectors.
#[inline(always)]
pub(super) unsafe fn zeros<F: Spread, const N: usize>(x: &One<'_>) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = Sums::new();
        let zero = _mm256_set1_epi8(F::ZERO as i8);
        macro_rules! vectors {
            ($($j:literal)*) => {{ $(if $j < N { sums.add::<F, N>(zero, x, $j); })* }};
        }
        vectors!(0 1 2 3);
        sums.dots[0]
    }
}
