//! Q6_K: w = (q - 32) * sc, |w| <= 32 * 128 = 4096; spans of 128, so 16 products per lane:
//! 16 * 4096 * 32767 = 2147418112 < 2^31.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, bytes16, half, nibble, scaled, widened};

/// See `formats/q6_k.rs` for the layout.
pub(super) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q6_K;
    const SPANS: usize = 2;
    const OFFSETS: usize = 0;

    #[inline(always)]
    unsafe fn head(group: *const u8, _: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            let d = half(group.add(208));
            let mut head = Head::EMPTY;
            (head.scale[0], head.scale[1]) = (d, d);
            let sc = _mm256_cvtepi8_epi16(bytes16(group.add(192)));
            // Each i16 next to itself; unpacking works within 128-bit halves.
            let (even, odd) = (_mm256_unpacklo_epi16(sc, sc), _mm256_unpackhi_epi16(sc, sc));
            let to = head.sub.as_mut_ptr().cast::<__m256i>();
            _mm256_storeu_si256(to, _mm256_permute2x128_si256::<0x20>(even, odd));
            _mm256_storeu_si256(to.add(1), _mm256_permute2x128_si256::<0x31>(even, odd));
            head
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, sub: &[i32; 16], b: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            // Run `b` of 128 values: 64 bytes of nibbles (low in runs 0 and 1, high in 2 and 3), 32 bytes of upper bits.
            let (chunk, part) = (b / 4, b % 4);
            let low = group.add(64 * chunk + 32 * (part % 2));
            let high = group.add(128 + 32 * chunk);
            scaled([run(low, high, part), run(low.add(16), high.add(16), part)], sub[2 * b], sub[2 * b + 1])
        }
    }
}

/// 16 values from 16 bytes of nibbles and 16 of upper bits.
#[inline(always)]
unsafe fn run(low: *const u8, high: *const u8, part: usize) -> __m256i {
    // SAFETY: the caller has AVX2 and both runs.
    unsafe {
        let (low, high) = (widened(low), widened(high));
        let upper = match part {
            0 => _mm256_slli_epi16::<4>(high),
            1 => _mm256_slli_epi16::<2>(high),
            2 => high,
            _ => _mm256_srli_epi16::<2>(high),
        };
        let upper = _mm256_and_si256(upper, _mm256_set1_epi16(0x30));
        let q = _mm256_or_si256(nibble(low, part / 2), upper);
        _mm256_sub_epi16(q, _mm256_set1_epi16(32))
    }
}
