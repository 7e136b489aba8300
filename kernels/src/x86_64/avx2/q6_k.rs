//! Q6_K: q <= 63, 32 above the value, scaled by |sc| <= 128 for each half of a run.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Sub, Weights, bytes16, bytes32, half, nibble, shifted};

/// See `formats/q6_k.rs` for the layout.
pub(in crate::x86_64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q6_K;
    const SIGNED: bool = false;
    const MOST: u8 = 63;
    const ZERO: u8 = 32;
    const SUB: Sub = Sub::Halves;
    const OFFSETS: usize = 16;

    #[inline(always)]
    unsafe fn head(group: *const u8, _: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            let d = half(group.add(208));
            let mut head = Head::EMPTY;
            head.scale[0] = d;
            let bytes = bytes16(group.add(192));
            _mm256_storeu_si256(head.sub.as_mut_ptr().cast(), _mm256_cvtepi8_epi16(bytes));
            let zero = _mm256_set1_ps(-f32::from(Self::ZERO) * d);
            for (half, bytes) in [bytes, _mm_unpackhi_epi64(bytes, bytes)].into_iter().enumerate() {
                let sc = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
                _mm256_storeu_ps(head.offset.as_mut_ptr().add(8 * half), _mm256_mul_ps(sc, zero));
            }
            head
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            // Run `b` of 128 values: 64 bytes of nibbles (low in runs 0 and 1, high in 2 and 3), 32 bytes of upper bits.
            let (chunk, part) = (b / 4, b % 4);
            let low = nibble(bytes32(group.add(64 * chunk + 32 * (part % 2))), part / 2);
            let upper = shifted(bytes32(group.add(128 + 32 * chunk)), 4 - 2 * part as i32);
            _mm256_or_si256(low, _mm256_and_si256(upper, _mm256_set1_epi8(0x30)))
        }
    }
}
