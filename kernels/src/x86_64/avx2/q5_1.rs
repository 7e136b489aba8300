//! Q5_1: q <= 31.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Sub, Weights, halves, nibbles, where_set};

/// See `formats/q5_1.rs` for the layout.
pub(in crate::x86_64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q5_1;
    const SIGNED: bool = false;
    const MOST: u8 = 31;
    const SUB: Sub = Sub::None;
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
    unsafe fn load(group: *const u8, b: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let block = group.add(24 * b);
            _mm256_or_si256(nibbles(block.add(8)), where_set(block.add(4), 16))
        }
    }
}
