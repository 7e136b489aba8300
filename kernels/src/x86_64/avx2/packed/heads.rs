//! Scales and offsets of packed rows, format by format.

use std::arch::x86_64::*;
use std::ptr::copy_nonoverlapping;

use super::super::product::Sides;
use super::super::spread::Spread;
use super::super::weights::{Head, Weights, half};
use super::super::{q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k};
use super::Packed;

/// Copies the f16 at `at` of `N` blocks to where [`halves`] wants those of `row`.
#[inline(always)]
unsafe fn gather<F: Weights, const N: usize>(group: *const u8, at: usize, row: usize, to: *mut u8) {
    for b in 0..N {
        let from = b * F::FORMAT.block_bytes() + at;
        // SAFETY: there are so many blocks, and room for so many f16 of two rows.
        unsafe { copy_nonoverlapping(group.add(from), to.add(2 * (N * row + b)), 2) };
    }
}

/// `N` f16 of `row`, of those of row 0 and of row 1, and zeros.
#[inline(always)]
unsafe fn halves<const N: usize>(at: *const u8, row: usize) -> __m256 {
    // SAFETY: the caller has F16C and 4 N bytes.
    unsafe {
        let at = at.add(2 * N * row).cast();
        _mm256_cvtph_ps(if N == 8 { _mm_loadu_si128(at) } else { _mm_loadl_epi64(at) })
    }
}

/// Blocks of 32 with a scale, and an offset where lanes have one: `[scale][offset]`.
macro_rules! blocks {
    ($($name:ident $bits:literal),*) => {$(
        impl Packed for $name::Blocks {
            const BITS: usize = $bits;

            #[inline(always)]
            unsafe fn pack_head<const N: usize>(group: *const u8, row: usize, heads: *mut u8) {
                // SAFETY: the caller's promise.
                unsafe {
                    gather::<Self, N>(group, 0, row, heads);
                    if Self::LANE_OFFSETS == 1 {
                        gather::<Self, N>(group, 2, row, heads.add(4 * N));
                    }
                }
            }

            #[inline(always)]
            unsafe fn unpack_head<const N: usize>(heads: *const u8, row: usize) -> Head {
                // SAFETY: the caller's promise; the arrays have eight values.
                unsafe {
                    let mut head = Head::EMPTY;
                    let scale = halves::<N>(heads, row);
                    let offset = if Self::LANE_OFFSETS == 1 {
                        halves::<N>(heads.add(4 * N), row)
                    } else {
                        _mm256_mul_ps(_mm256_set1_ps(-f32::from(Self::ZERO)), scale)
                    };
                    _mm256_storeu_ps(head.scale.as_mut_ptr(), scale);
                    _mm256_storeu_ps(head.offset.as_mut_ptr(), offset);
                    head
                }
            }

            #[inline(always)]
            unsafe fn sides<const N: usize>(heads: *const u8, row: usize) -> Sides {
                // SAFETY: the caller's promise.
                unsafe {
                    let zero = _mm256_setzero_ps();
                    let scale = halves::<N>(heads, row);
                    // In a step of 128 columns each run has two lanes.
                    let scale = if N == 8 { scale } else { _mm256_permute2f128_ps::<0>(scale, scale) };
                    let mut offset = zero;
                    if Self::LANE_OFFSETS == 1 {
                        // They count once.
                        offset = halves::<N>(heads.add(4 * N), row);
                    }
                    Sides { scale: [scale, zero], offset: [offset, zero] }
                }
            }
        }
    )*};
}

blocks!(q4_0 4, q4_1 4, q5_0 5, q5_1 5);

/// The first 16 bytes of both rows' blocks, as stored.
macro_rules! nested {
    ($($name:ident $bits:literal),*) => {$(
        impl Packed for $name::Blocks {
            const BITS: usize = $bits;

            #[inline(always)]
            unsafe fn pack_head<const N: usize>(group: *const u8, row: usize, heads: *mut u8) {
                // SAFETY: the caller's promise.
                unsafe { copy_nonoverlapping(group, heads.add(16 * row), 16) }
            }

            #[inline(always)]
            unsafe fn unpack_head<const N: usize>(heads: *const u8, row: usize) -> Head {
                // SAFETY: the caller's promise.
                unsafe { q4_k::head_of(heads.add(16 * row)) }
            }

            #[inline(always)]
            unsafe fn sides<const N: usize>(heads: *const u8, row: usize) -> Sides {
                // SAFETY: the caller's promise.
                unsafe { nested(heads.add(16 * row)) }
            }
        }
    )*};
}

nested!(q4_k 4, q5_k 5);

/// `sc` and `m`, eight 6-bit numbers each, taken apart as in [`q4_k::head_of`].
#[inline(always)]
unsafe fn nested(head: *const u8) -> Sides {
    // SAFETY: the caller has AVX2 and F16C and 16 bytes.
    unsafe {
        // d and dmin, four sc, four m, what is left of both.
        let words = _mm_loadu_si128(head.cast());
        // sc 0..4, sc 4..8, m 0..4, m 4..8.
        let first = _mm_srlv_epi32(_mm_shuffle_epi32::<0b10_10_01_01>(words), _mm_setr_epi32(0, 2, 0, 2));
        let first = _mm_and_si128(first, _mm_set1_epi64x(0x3030_3030_3f3f_3f3f));
        let second = _mm_srlv_epi32(_mm_shuffle_epi32::<0b11_11_11_11>(words), _mm_setr_epi32(32, 0, 32, 4));
        let numbers = _mm_or_si128(first, _mm_and_si128(second, _mm_set1_epi8(15)));
        let sc = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(numbers));
        let m = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(numbers, numbers)));
        let d = _mm256_cvtph_ps(_mm_shuffle_epi8(words, _mm_set1_epi16(0x0100)));
        // The sign of dmin, changed, is that of -dmin.
        let dmin = _mm_xor_si128(_mm_shuffle_epi8(words, _mm_set1_epi16(0x0302)), _mm_set1_epi16(i16::MIN));
        let zero = _mm256_setzero_ps();
        let offset = _mm256_mul_ps(m, _mm256_cvtph_ps(dmin));
        Sides { scale: [_mm256_mul_ps(sc, d), zero], offset: [offset, zero] }
    }
}

/// The `sc` of the first 16 columns of all runs of both rows, those of the others, then both `d`.
impl Packed for q6_k::Blocks {
    const BITS: usize = 6;

    #[inline(always)]
    unsafe fn pack_head<const N: usize>(group: *const u8, row: usize, heads: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            for run in 0..8 {
                for half in 0..2 {
                    *heads.add(16 * half + 8 * row + run) = *group.add(192 + 2 * run + half);
                }
            }
            copy_nonoverlapping(group.add(208), heads.add(32 + 2 * row), 2);
        }
    }

    #[inline(always)]
    unsafe fn unpack_head<const N: usize>(heads: *const u8, row: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            let mut head = Head::EMPTY;
            let d = half(heads.add(32 + 2 * row));
            head.scale[0] = d;
            for (i, (sub, offset)) in head.sub.iter_mut().zip(&mut head.offset).enumerate() {
                *sub = i16::from(*heads.add(16 * (i % 2) + 8 * row + i / 2) as i8);
                *offset = f32::from(*sub) * (-f32::from(Self::ZERO) * d);
            }
            head
        }
    }

    #[inline(always)]
    unsafe fn sides<const N: usize>(heads: *const u8, row: usize) -> Sides {
        // SAFETY: the caller's promise.
        unsafe {
            let d = _mm256_set1_ps(half(heads.add(32 + 2 * row)));
            let zero = _mm256_setzero_ps();
            let mut scale = [zero; 2];
            for (half, scale) in scale.iter_mut().enumerate() {
                let sc = _mm256_cvtepi8_epi32(_mm_loadl_epi64(heads.add(16 * half + 8 * row).cast()));
                *scale = _mm256_mul_ps(_mm256_cvtepi32_ps(sc), d);
            }
            Sides { scale, offset: [zero; 2] }
        }
    }
}
