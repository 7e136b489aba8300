//! One token: rows straight from the mapped file, one after the other; see `product.rs`.

use std::arch::x86_64::*;

use super::super::avx2::runs::{fold, sum};
use super::super::avx2::spread::{Spread, bytes, offsets, scales};
use super::super::avx2::weights::ahead;
use super::product::X;
use crate::activations::{GROUP, Group, Planes};
use crate::pool::Tile;
use crate::product::Product;

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn one<F: Spread>(p: &Product<'_>, x: X<'_>, out: &mut Tile<'_, f32>) {
    for r in out.cols() {
        // SAFETY: rows and groups were checked by the caller.
        unsafe { p.put(out, 0, r, row::<F>(p.weights.as_ptr().add(r * p.row_bytes), p.cols, x)) };
    }
}

/// One row's product.
///
/// # Safety
/// As for [`one`]; `w` is a row of so many columns.
#[inline(always)]
pub(super) unsafe fn row<F: Spread>(w: *const u8, cols: usize, x: X<'_>) -> f32 {
    let (full, tail) = (cols / GROUP, cols % GROUP / 32);
    // SAFETY: the caller's promise.
    unsafe {
        let mut total = _mm256_setzero_ps();
        for g in 0..full {
            total = step::<F, 8>(w.add(g * F::BYTES), &x.groups[g], 0, total);
        }
        if tail != 0 {
            total = end::<F>(w.add(full * F::BYTES), &x.groups[full], (0, tail), total);
        }
        sum(total)
    }
}

/// Adds `runs` at the end of a row, which are no whole step and of which the first is run `from` of its group.
///
/// # Safety
/// As for [`one`]; `w` has these runs.
#[inline(always)]
pub(super) unsafe fn end<F: Spread>(
    w: *const u8,
    x: &Group,
    (from, runs): (usize, usize),
    mut total: __m256,
) -> __m256 {
    let mut done = 0;
    macro_rules! steps {
        ($($n:literal)*) => {{ $(
            if runs & $n != 0 {
                // SAFETY: the caller's promise.
                total = unsafe { step::<F, $n>(w.add(done * F::FORMAT.block_bytes()), x, from + done, total) };
                done += $n;
            }
        )* }};
    }
    steps!(4 2 1);
    let _ = done;
    total
}

/// Adds `N` runs, which begin at `w` and with run `first` of the group `x`.
#[inline(always)]
unsafe fn step<F: Spread, const N: usize>(w: *const u8, x: &Group, first: usize, total: __m256) -> __m256 {
    // SAFETY: the caller has the instructions and the runs.
    unsafe {
        ahead(w, F::BYTES);
        let head = F::head(w, N);
        let planes = &x.planes[first..];
        let mut dots = [_mm256_setzero_si256(); 8];
        // Spelled out: unpacking needs `b` as a constant, and the compiler does not unroll a body this long.
        macro_rules! runs {
            ($($b:literal)*) => {{ $(if $b < N {
                let dot = dot(bytes::<F>(w, $b), &planes[$b]);
                // Lanes hold parts of runs, of which there are no sums.
                let zero = if N < 8 && F::BYTE_ZERO != 0 {
                    self::dot(_mm256_set1_epi8(F::BYTE_ZERO as i8), &planes[$b])
                } else {
                    _mm256_setzero_si256()
                };
                dots[$b] = _mm256_sub_epi32(dot, zero);
            })* }};
        }
        runs!(0 1 2 3 4 5 6 7);
        let halves = fold::<N>(&dots);
        let (scale, offset) = (scales::<F, N>(&head), offsets::<F>(&head));
        let unit = _mm256_set1_ps(x.scales[0]);
        if F::HALVES {
            let mut total = total;
            for h in 0..2 {
                let sums = x.sums16.as_ptr().add(8 * h);
                let dot = _mm256_cvtepi32_ps(around::<F>(halves[h], sums));
                let mut value = _mm256_mul_ps(dot, scale[h]);
                if F::LANE_OFFSETS > 0 {
                    value = _mm256_fmadd_ps(offset[h], _mm256_loadu_ps(sums), value);
                }
                total = _mm256_fmadd_ps(value, unit, total);
            }
            return total;
        }
        let dot = if N == 8 {
            around::<F>(_mm256_add_epi32(halves[0], halves[1]), x.sums32.as_ptr())
        } else {
            halves[0]
        };
        let mut value = _mm256_mul_ps(_mm256_cvtepi32_ps(dot), scale[0]);
        if F::LANE_OFFSETS > 0 {
            let sums = if N == 8 {
                _mm256_load_ps(x.sums32.as_ptr())
            } else {
                _mm256_maskz_loadu_ps((1 << N) - 1, x.sums32.as_ptr().add(first))
            };
            value = _mm256_fmadd_ps(offset[0], sums, value);
        }
        _mm256_fmadd_ps(value, unit, total)
    }
}

/// `dot` without what the bytes' zero adds to it: sums are whole numbers below 2^24.
#[inline(always)]
unsafe fn around<F: Spread>(dot: __m256i, sums: *const f32) -> __m256i {
    if F::BYTE_ZERO == 0 {
        return dot;
    }
    // SAFETY: the caller has AVX2 and eight sums.
    unsafe {
        let sums = _mm256_cvtps_epi32(_mm256_loadu_ps(sums));
        _mm256_sub_epi32(dot, _mm256_mullo_epi32(sums, _mm256_set1_epi32(F::BYTE_ZERO)))
    }
}

/// Eight sums of four products with unsigned bytes.
#[inline(always)]
unsafe fn dot(q: __m256i, x: &Planes) -> __m256i {
    // SAFETY: the caller has the instructions; planes are two aligned vectors.
    unsafe {
        let x = x.0.as_ptr().cast::<__m256i>();
        let high = _mm256_dpbusd_epi32(_mm256_setzero_si256(), q, _mm256_load_si256(x));
        _mm256_dpbusd_epi32(_mm256_slli_epi32::<8>(high), q, _mm256_load_si256(x.add(1)))
    }
}
