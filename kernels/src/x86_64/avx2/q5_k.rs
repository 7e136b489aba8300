//! Q5_K: w = q * sc <= 31 * 63 = 1953; 32 products per lane: 32 * 1953 * 32767 = 2047806432 < 2^31.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::q4_k::head_of;
use super::weights::{Head, Weights, nibble, scaled, widened};

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
    unsafe fn load(group: *const u8, sub: &[i32; 16], b: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let (bytes, fifth) = (group.add(48 + 32 * (b / 2)), group.add(16));
            scaled([run(bytes, fifth, b), run(bytes.add(16), fifth.add(16), b)], sub[b], sub[b])
        }
    }
}

/// 16 values from 16 bytes of nibbles and 16 of fifth bits.
#[inline(always)]
unsafe fn run(low: *const u8, fifth: *const u8, b: usize) -> __m256i {
    // SAFETY: the caller has AVX2 and both runs.
    unsafe {
        let bit = _mm256_set1_epi16(1 << b);
        let set = _mm256_cmpeq_epi16(_mm256_and_si256(widened(fifth), bit), bit);
        _mm256_or_si256(nibble(widened(low), b % 2), _mm256_and_si256(set, _mm256_set1_epi16(16)))
    }
}
