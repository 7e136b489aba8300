//! Q5_0: q <= 31, 16 above the value.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Sub, Weights, around, nibbles, where_set};

/// See `formats/q5_0.rs` for the layout.
pub(in crate::x86_64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q5_0;
    const SIGNED: bool = false;
    const MOST: u8 = 31;
    const ZERO: u8 = 16;
    const SUB: Sub = Sub::None;
    const OFFSETS: usize = 8;

    #[inline(always)]
    unsafe fn head(group: *const u8, blocks: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe { around(Self::ZERO, group, 22, blocks) }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let block = group.add(22 * b);
            _mm256_or_si256(nibbles(block.add(6)), where_set(block.add(2), 16))
        }
    }
}
