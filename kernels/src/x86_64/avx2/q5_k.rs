//! Q5_K: w = q * sc <= 31 * 63 = 1953; 32 products per lane: 32 * 1953 * 32767 = 2047806432 < 2^31.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::q4_k::head_of;
use super::weights::{Head, Weights, scaled, widened};

/// See `formats/q5_k.rs` for the layout.
pub(super) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q5_K;
    const SPANS: usize = 1;
    const OFFSETS: usize = 8;

    #[inline(always)]
    unsafe fn head(group: *const u8, _: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe { head_of(group) }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, head: &Head, b: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let bytes = group.add(48 + 32 * (b / 2));
            let bit = _mm256_set1_epi16(1 << b);
            let part = |at, fifth| {
                let x = widened(at);
                let q = if b % 2 == 0 {
                    _mm256_and_si256(x, _mm256_set1_epi16(15))
                } else {
                    _mm256_srli_epi16::<4>(x)
                };
                let set = _mm256_cmpeq_epi16(_mm256_and_si256(widened(fifth), bit), bit);
                _mm256_or_si256(q, _mm256_and_si256(set, _mm256_set1_epi16(16)))
            };
            let fifth = group.add(16);
            scaled([part(bytes, fifth), part(bytes.add(16), fifth.add(16))], head, b)
        }
    }
}
