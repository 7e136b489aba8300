//! Q5_0: w = q - 16, |w| <= 16; 4 products per lane: 4 * 16 * 32767 < 2^31.
//!
//! `nibble | -16` is `nibble - 16`: or-ing it in where the fifth bit is clear does both steps at once.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, halves, lanes_of, nibbles};

/// See `formats/q5_0.rs` for the layout.
pub(super) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q5_0;
    const SPANS: usize = 8;
    const OFFSETS: usize = 0;

    #[inline(always)]
    unsafe fn head(group: *const u8, blocks: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe { Head { scale: halves(group, 22, blocks), ..Head::EMPTY } }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, _: &[i32; 16], b: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let block = group.add(22 * b);
            let [first, second] = lanes_of(block.add(2));
            let minus = _mm256_set1_epi16(-16);
            let [low, high] = nibbles(block.add(6));
            [
                _mm256_or_si256(low, _mm256_andnot_si256(first, minus)),
                _mm256_or_si256(high, _mm256_andnot_si256(second, minus)),
            ]
        }
    }
}
