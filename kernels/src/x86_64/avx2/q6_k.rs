//! Q6_K: w = (q - 32) * sc, |w| <= 32 * 128 = 4096; spans of 128, so 16 products per lane:
//! 16 * 4096 * 32767 = 2147418112 < 2^31.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, bytes16, half, scaled, widened};

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
            _mm256_storeu_si256(head.sub.as_mut_ptr().cast(), sc);
            head
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, head: &Head, b: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            // Run `b` of 128 values: 64 bytes of nibbles (low in runs 0 and 1, high in 2 and 3), 32 bytes of upper bits.
            let (chunk, part) = (b / 4, b % 4);
            let low = group.add(64 * chunk + 32 * (part % 2));
            let high = group.add(128 + 32 * chunk);
            let up = _mm_cvtsi32_si128(4 - 2 * part.min(2) as i32);
            let run = |low, high| {
                let x = widened(low);
                let nibble = if part < 2 {
                    _mm256_and_si256(x, _mm256_set1_epi16(15))
                } else {
                    _mm256_srli_epi16::<4>(x)
                };
                let upper = widened(high);
                let upper =
                    if part == 3 { _mm256_srli_epi16::<2>(upper) } else { _mm256_sll_epi16(upper, up) };
                let q = _mm256_or_si256(nibble, _mm256_and_si256(upper, _mm256_set1_epi16(0x30)));
                _mm256_sub_epi16(q, _mm256_set1_epi16(32))
            };
            scaled([run(low, high), run(low.add(16), high.add(16))], head, b)
        }
    }
}
