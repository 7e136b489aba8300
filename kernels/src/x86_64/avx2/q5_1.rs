//! Q5_1: w = q <= 31; 4 products per lane: 4 * 31 * 32767 < 2^31.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, halves, lanes_of, nibbles};

/// See `formats/q5_1.rs` for the layout.
pub(super) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q5_1;
    const SPANS: usize = 8;
    const OFFSETS: usize = 8;

    #[inline(always)]
    unsafe fn head(group: *const u8, blocks: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            let mut head = Head { scale: halves(group, 24, blocks), ..Head::EMPTY };
            head.offset[..8].copy_from_slice(&halves(group.add(2), 24, blocks));
            head
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, _: &[i32; 16], b: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let block = group.add(24 * b);
            let [first, second] = lanes_of(block.add(4));
            let sixteen = _mm256_set1_epi16(16);
            let [low, high] = nibbles(block.add(8));
            [
                _mm256_or_si256(low, _mm256_and_si256(first, sixteen)),
                _mm256_or_si256(high, _mm256_and_si256(second, sixteen)),
            ]
        }
    }
}
