//! Which columns of a group a lane holds: runs side by side.
//!
//! ```text
//! N runs of 32 values, N = 8, 4, 2 or 1; a run is eight cells of four bytes (or of two i16), one ymm register
//!
//!             run 0      run 1   ..   run 7           spread: N vectors of 8 lanes; lane l holds cells of run l % N
//!  N = 8     0 1 .. 7   0 1 .. 7     0 1 .. 7    ->   [0 0 .. 0] [1 1 .. 1] .. [7 7 .. 7]
//!  N = 4     0 1 .. 7   .. run 3                 ->   [0 0 0 0 4 4 4 4] [1 .. 5 ..] [2 .. 6 ..] [3 .. 7 ..]
//!  N = 2     0 1 .. 7   run 1                    ->   [0 0 1 1 4 4 5 5] [2 2 3 3 6 6 7 7]
//!  N = 1     0 1 .. 7                            ->   [0 1 .. 7]
//! ```
//! So the products of one lane share a scale. [`fold`] adds the vectors that [`spread`] would give.

use std::arch::x86_64::*;

/// See the file's header; `v[N..]` is left alone.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(in crate::x86_64) unsafe fn spread<const N: usize>(v: &mut [__m256i; 8]) {
    // SAFETY: the caller's promise.
    unsafe {
        match N {
            8 => {
                let [a, b] = [four([v[0], v[1], v[2], v[3]]), four([v[4], v[5], v[6], v[7]])];
                for j in 0..4 {
                    v[j] = _mm256_permute2x128_si256::<0x20>(a[j], b[j]);
                    v[j + 4] = _mm256_permute2x128_si256::<0x31>(a[j], b[j]);
                }
            }
            4 => {
                let spread = four([v[0], v[1], v[2], v[3]]);
                (v[0], v[1], v[2], v[3]) = (spread[0], spread[1], spread[2], spread[3]);
            }
            2 => (v[0], v[1]) = (_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1])),
            _ => {}
        }
    }
}

/// Transposes 4 x 4 cells in both halves.
#[inline(always)]
unsafe fn four(v: [__m256i; 4]) -> [__m256i; 4] {
    // SAFETY: the caller has AVX2.
    unsafe {
        let (a, b) = (_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpacklo_epi32(v[2], v[3]));
        let (c, d) = (_mm256_unpackhi_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[2], v[3]));
        [
            _mm256_unpacklo_epi64(a, b),
            _mm256_unpackhi_epi64(a, b),
            _mm256_unpacklo_epi64(c, d),
            _mm256_unpackhi_epi64(c, d),
        ]
    }
}

/// Sums of the vectors [`spread`] would give: of the first and of the second half of them if `N` is 8 (columns 0 to 15 and 16 to
/// 31 of every run), else all in the first.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(in crate::x86_64) unsafe fn fold<const N: usize>(v: &[__m256i; 8]) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        match N {
            8 => {
                let [a, b] = [fold_four([v[0], v[1], v[2], v[3]]), fold_four([v[4], v[5], v[6], v[7]])];
                [_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b)]
            }
            4 => [fold_four([v[0], v[1], v[2], v[3]]), _mm256_setzero_si256()],
            2 => [fold_two(v[0], v[1]), _mm256_setzero_si256()],
            _ => [v[0], _mm256_setzero_si256()],
        }
    }
}

#[inline(always)]
unsafe fn fold_two(a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b)) }
}

#[inline(always)]
unsafe fn fold_four(v: [__m256i; 4]) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe {
        let (a, b) = (fold_two(v[0], v[1]), fold_two(v[2], v[3]));
        _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b))
    }
}

/// Sum of eight lanes: `((0 + 2) + (1 + 3)) + ((4 + 6) + (5 + 7))`.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(in crate::x86_64) unsafe fn sum(v: __m256) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let two = _mm256_add_ps(v, _mm256_permute_ps::<0b01_00_11_10>(v));
        let four = _mm256_add_ps(two, _mm256_permute_ps::<0b10_11_00_01>(two));
        _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(four), _mm256_extractf128_ps::<1>(four)))
    }
}

/// The steps of `runs` (at most 8) runs of a group: where each begins, and how many it has.
pub(in crate::x86_64) fn steps(runs: usize) -> impl Iterator<Item = (usize, usize)> {
    [8, 4, 2, 1].into_iter().filter(move |n| runs & n != 0).scan(0, |first, n| {
        let step = (*first, n);
        *first += n;
        Some(step)
    })
}
