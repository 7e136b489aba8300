//! Scales and offsets of two packed rows, format by format.

use std::arch::x86_64::*;

use super::super::super::avx2::spread::Spread;
use super::super::super::avx2::{q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k};
use super::{Heads, Packed};

/// `N` f16 of row 0, then of row 1, in lanes: all of a row's eight, or four of them twice.
#[inline(always)]
unsafe fn halves<const N: usize>(at: *const u8) -> __m512 {
    // SAFETY: the caller has AVX-512 and 4 N bytes.
    unsafe {
        if N == 8 {
            return _mm512_cvtph_ps(_mm256_loadu_si256(at.cast()));
        }
        let both = _mm512_castps256_ps512(_mm256_cvtph_ps(_mm_loadu_si128(at.cast())));
        _mm512_shuffle_f32x4::<0b01_01_00_00>(both, both)
    }
}

/// The same of offsets, which count once: zero where a lane holds a second part of a run.
#[inline(always)]
unsafe fn offsets<const N: usize>(at: *const u8) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe { _mm512_maskz_mov_ps(if N == 8 { 0xffff } else { 0x0f0f }, halves::<N>(at)) }
}

/// Blocks of 32 with a scale, and an offset where lanes have one: `[scale][offset]`.
macro_rules! blocks {
    ($($name:ident),*) => {$(
        impl Packed for $name::Blocks {
            #[inline(always)]
            unsafe fn heads<const N: usize>(heads: *const u8) -> Heads {
                // SAFETY: the caller's promise.
                unsafe {
                    let mut offset = _mm512_setzero_ps();
                    if Self::LANE_OFFSETS == 1 {
                        offset = offsets::<N>(heads.add(4 * N));
                    }
                    Heads { scale: [halves::<N>(heads), _mm512_setzero_ps()], offset }
                }
            }
        }
    )*};
}

blocks!(q4_0, q4_1, q5_0, q5_1);

/// The first 16 bytes of both rows' blocks, as stored.
macro_rules! nested {
    ($($name:ident),*) => {$(
        impl Packed for $name::Blocks {
            #[inline(always)]
            unsafe fn heads<const N: usize>(heads: *const u8) -> Heads {
                // SAFETY: the caller's promise.
                unsafe { nested(heads) }
            }
        }
    )*};
}

nested!(q4_k, q5_k);

/// Both rows' `sc` and `m`, eight 6-bit numbers each, taken apart as in [`q4_k::head_of`].
#[inline(always)]
unsafe fn nested(heads: *const u8) -> Heads {
    // SAFETY: the caller has AVX-512 and 32 bytes.
    unsafe {
        // In both halves: d and dmin, four sc, four m, what is left of both.
        let words = _mm256_loadu_si256(heads.cast());
        let low = _mm256_set1_epi8(15);
        // The words sc 0..4, sc 4..8, m 0..4, m 4..8.
        let first = _mm256_srlv_epi32(
            _mm256_shuffle_epi32::<0b10_10_01_01>(words),
            _mm256_setr_epi32(0, 2, 0, 2, 0, 2, 0, 2),
        );
        let mask = _mm256_set1_epi64x(0x3030_3030_3f3f_3f3f);
        let second = _mm256_srlv_epi32(
            _mm256_shuffle_epi32::<0b11_11_11_11>(words),
            _mm256_setr_epi32(32, 0, 32, 4, 32, 0, 32, 4),
        );
        let numbers = _mm256_or_si256(_mm256_and_si256(first, mask), _mm256_and_si256(second, low));
        // The sc of both rows, then the m of both.
        let numbers = _mm256_permute4x64_epi64::<0b11_01_10_00>(numbers);
        let sc = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm256_castsi256_si128(numbers)));
        let m = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm256_extracti128_si256::<1>(numbers)));
        let d = _mm512_cvtph_ps(_mm256_shuffle_epi8(words, _mm256_set1_epi16(0x0100)));
        // The sign of dmin, changed, is that of -dmin.
        let minus = _mm256_set1_epi16(i16::MIN);
        let dmin = _mm256_xor_si256(_mm256_shuffle_epi8(words, _mm256_set1_epi16(0x0302)), minus);
        Heads {
            scale: [_mm512_mul_ps(sc, d), _mm512_setzero_ps()],
            offset: _mm512_mul_ps(m, _mm512_cvtph_ps(dmin)),
        }
    }
}

/// The `sc` of the first 16 columns of all runs of both rows, those of the others, then both `d`.
impl Packed for q6_k::Blocks {
    #[inline(always)]
    unsafe fn heads<const N: usize>(heads: *const u8) -> Heads {
        // SAFETY: the caller's promise.
        unsafe {
            let d = _mm_cvtsi32_si128(heads.add(32).cast::<i32>().read_unaligned());
            let rows = _mm256_setr_epi16(
                0x0100, 0x0100, 0x0100, 0x0100, 0x0100, 0x0100, 0x0100, 0x0100, 0x0302, 0x0302, 0x0302,
                0x0302, 0x0302, 0x0302, 0x0302, 0x0302,
            );
            let d = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(d), rows);
            let d = _mm512_cvtph_ps(d);
            let first = _mm512_cvtepi8_epi32(_mm_loadu_si128(heads.cast()));
            let second = _mm512_cvtepi8_epi32(_mm_loadu_si128(heads.add(16).cast()));
            let scale =
                [_mm512_mul_ps(_mm512_cvtepi32_ps(first), d), _mm512_mul_ps(_mm512_cvtepi32_ps(second), d)];
            Heads { scale, offset: _mm512_setzero_ps() }
        }
    }
}
