//! Q4_0: w = q - 8, |w| <= 8; 4 products per lane: 4 * 8 * 32767 < 2^31.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, halves, nibbles};

/// See `formats/q4_0.rs` for the layout.
pub(super) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q4_0;
    const SPANS: usize = 8;
    const OFFSETS: usize = 0;

    #[inline(always)]
    unsafe fn head(group: *const u8, blocks: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe { Head { scale: halves(group, 18, blocks), ..Head::EMPTY } }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, _: &[i32; 16], b: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let eight = _mm256_set1_epi16(8);
            let [low, high] = nibbles(group.add(18 * b + 2));
            [_mm256_sub_epi16(low, eight), _mm256_sub_epi16(high, eight)]
        }
    }
}
