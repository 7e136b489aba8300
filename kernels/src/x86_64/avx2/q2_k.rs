//! Q2_K: w = q * sc <= 3 * 15 = 45; 32 products per lane: 32 * 45 * 32767 < 2^31.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, half, scaled, twice, widened};

/// See `formats/q2_k.rs` for the layout.
pub(super) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q2_K;
    const SPANS: usize = 1;
    const OFFSETS: usize = 16;

    #[inline(always)]
    unsafe fn head(group: *const u8, _: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            let mut head = Head::EMPTY;
            let (d, dmin) = (half(group.add(80)), half(group.add(82)));
            head.scale[0] = d;
            for s in 0..16 {
                let byte = group.add(s).read();
                head.sub[s] = twice(i16::from(byte & 15));
                head.offset[s] = -(dmin * f32::from(byte >> 4));
            }
            head
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, sub: &[i32; 16], b: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let q = group.add(16 + 32 * (b / 4));
            let (first, second) = (widened(q), widened(q.add(16)));
            scaled([two_bits(first, b % 4), two_bits(second, b % 4)], sub[2 * b], sub[2 * b + 1])
        }
    }
}

/// Bits `2 part` and `2 part + 1` of widened bytes.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(super) unsafe fn two_bits(x: __m256i, part: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let x = match part {
            0 => x,
            1 => _mm256_srli_epi16::<2>(x),
            2 => _mm256_srli_epi16::<4>(x),
            _ => _mm256_srli_epi16::<6>(x),
        };
        _mm256_and_si256(x, _mm256_set1_epi16(3))
    }
}
