//! Eight f32 lanes in one ymm register.

use std::arch::x86_64::*;

use crate::isa::Avx2;
use crate::simd::{LANES, Simd};

/// Sum of the lanes, as [`Simd::sum`] orders it.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(super) unsafe fn sum(v: __m256) -> f32 {
    // SAFETY: the caller has AVX2.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// One intrinsic; `self` is the proof that it may run.
macro_rules! op {
    ($(#[$doc:meta])* $name:ident($($arg:ident),*) => $body:expr) => {
        #[inline(always)]
        fn $name(self, $($arg: __m256),*) -> __m256 {
            // SAFETY: the token proves that the instructions are there.
            unsafe { $body }
        }
    };
}

impl Simd for Avx2 {
    type V = __m256;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: the token proves that the instructions are there.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m256 {
        // SAFETY: as above, and the array has eight values.
        unsafe { _mm256_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, v: __m256, out: &mut [f32; LANES]) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> __m256 {
        // SAFETY: as above; eight halves are one xmm register.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())) }
    }
    op!(add(a, b) => _mm256_add_ps(a, b));
    op!(sub(a, b) => _mm256_sub_ps(a, b));
    op!(mul(a, b) => _mm256_mul_ps(a, b));
    op!(div(a, b) => _mm256_div_ps(a, b));
    op!(fma(a, b, c) => _mm256_fmadd_ps(a, b, c));
    op!(min(a, b) => _mm256_min_ps(a, b));
    op!(max(a, b) => _mm256_max_ps(a, b));
    op!(round(a) => _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a));
    op!(exp2_whole(n) => {
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
    });
    op!(select_lt(a, b, yes, no) => _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)));

    #[inline(always)]
    fn sum(self, v: __m256) -> f32 {
        // SAFETY: the token proves that the instructions are there.
        unsafe { sum(v) }
    }
    #[inline(always)]
    fn largest(self, v: __m256) -> f32 {
        // SAFETY: as above.
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
}
