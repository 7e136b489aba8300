//! What the loops take from a format: its scales as eight f32 lanes.
//!
//! ```text
//! value = scale[lane (, half)] * w + offset[lane (, half)],   w = q - zero
//! ```
//! A lane holds columns of one run of 32 ([`super::runs`]), so scales per run need no place in the integers: Q4_K, Q5_K and IQ4_XS
//! scale their lanes by `d * sc`, which f32 holds exactly (11 + 6 bits). Where there are scales per 16 values (Q2_K, Q3_K, Q6_K), the
//! columns 0 to 15 of every run are summed first, and then the others, each with its own (11 + 8 bits). A lane sums at most 32 products of
//! unsigned bytes in i32: 32 * 255 * 32639 < 2^31.

use std::arch::x86_64::*;

use super::weights::{Head, Sub, Weights};
use crate::activations::Group;

/// What the loops derive from a format's constants.
pub(in crate::x86_64) trait Spread: Weights {
    /// Scales per 16 values.
    const HALVES: bool = matches!(Self::SUB, Sub::Halves);
    /// Scales a lane has.
    const SCALES: usize = if Self::HALVES { 2 } else { 1 };
    /// Offsets a lane has: 0, 1, or 2 (one for each 16 columns).
    const LANE_OFFSETS: usize = if Self::ZERO == 0 { Self::OFFSETS / 8 } else { 0 };
    /// What the bytes of [`bytes`] hold for 0.
    const BYTE_ZERO: i32 = if Self::SIGNED { 128 } else { Self::ZERO as i32 };
}

impl<F: Weights> Spread for F {}

/// Run `b` as unsigned bytes.
///
/// # Safety
/// As for [`Weights::load`].
#[inline(always)]
pub(in crate::x86_64) unsafe fn bytes<F: Spread>(w: *const u8, b: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let q = F::load(w, b);
        if F::SIGNED { _mm256_xor_si256(q, _mm256_set1_epi8(-128)) } else { q }
    }
}

/// The scales of every lane of a step of `N` runs: those of the format, one or two.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(in crate::x86_64) unsafe fn scales<F: Spread, const N: usize>(head: &Head) -> [__m256; 2] {
    // SAFETY: the caller's promise; a head has eight scales and sixteen integers.
    unsafe {
        let scale = match F::SUB {
            Sub::None => {
                let scales = _mm256_loadu_ps(head.scale.as_ptr());
                match N {
                    8 => scales,
                    4 => _mm256_permute2f128_ps::<0>(scales, scales),
                    2 => {
                        _mm256_castpd_ps(_mm256_broadcastsd_pd(_mm_castps_pd(_mm256_castps256_ps128(scales))))
                    }
                    _ => _mm256_set1_ps(head.scale[0]),
                }
            }
            Sub::Runs => {
                let sub = _mm256_srai_epi32::<16>(_mm256_loadu_si256(head.sub.as_ptr().cast()));
                _mm256_mul_ps(_mm256_cvtepi32_ps(sub), _mm256_set1_ps(head.scale[0]))
            }
            Sub::Halves => {
                let pairs = _mm256_loadu_si256(head.sub.as_ptr().cast());
                let first = _mm256_srai_epi32::<16>(_mm256_slli_epi32::<16>(pairs));
                let second = _mm256_srai_epi32::<16>(pairs);
                let scale = _mm256_set1_ps(head.scale[0]);
                return [
                    _mm256_mul_ps(_mm256_cvtepi32_ps(first), scale),
                    _mm256_mul_ps(_mm256_cvtepi32_ps(second), scale),
                ];
            }
        };
        [scale, _mm256_setzero_ps()]
    }
}

/// The offsets of every lane: those of the format, one of a lane or two.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(in crate::x86_64) unsafe fn offsets<F: Spread>(head: &Head) -> [__m256; 2] {
    // SAFETY: the caller's promise; a head has sixteen offsets.
    unsafe {
        let first = _mm256_loadu_ps(head.offset.as_ptr());
        if F::OFFSETS < 16 {
            return [first, _mm256_setzero_ps()];
        }
        let second = _mm256_loadu_ps(head.offset.as_ptr().add(8));
        let even = _mm256_shuffle_ps::<0b10_00_10_00>(first, second);
        let odd = _mm256_shuffle_ps::<0b11_01_11_01>(first, second);
        [in_order(even), in_order(odd)]
    }
}

/// Shuffles work within 128-bit halves; this restores the order.
#[inline(always)]
unsafe fn in_order(v: __m256) -> __m256 {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(_mm256_castps_pd(v))) }
}

/// The unit of every lane of a step of `N` runs of a coarse token, from run `first` on.
///
/// # Safety
/// AVX2, and the group has these runs.
#[inline(always)]
pub(in crate::x86_64) unsafe fn units<const N: usize>(x: &Group, first: usize) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let scales = x.scales.as_ptr().add(first);
        match N {
            8 => _mm256_loadu_ps(scales),
            4 => _mm256_broadcast_ps(&*scales.cast()),
            2 => _mm256_castpd_ps(_mm256_set1_pd(scales.cast::<f64>().read_unaligned())),
            _ => _mm256_set1_ps(*scales),
        }
    }
}

/// What offset `o` of every lane multiplies, of a step of `N` runs from run `first` on.
///
/// # Safety
/// AVX2, and the group has these runs.
#[inline(always)]
pub(in crate::x86_64) unsafe fn lane_sums<F: Spread, const N: usize>(
    x: &Group,
    o: usize,
    first: usize,
) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        if F::OFFSETS > 8 {
            return _mm256_loadu_ps(x.sums16.as_ptr().add(8 * o));
        }
        let sums = x.sums32.as_ptr().add(first);
        match N {
            8 => _mm256_loadu_ps(sums),
            _ => {
                // Lanes hold parts of runs: each run's offset counts once.
                let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
                let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(N as i32), lanes);
                _mm256_maskload_ps(sums, mask)
            }
        }
    }
}
