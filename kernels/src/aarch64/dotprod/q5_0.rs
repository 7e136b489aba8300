//! Q5_0: w = q - 16, |w| <= 16.

use std::arch::aarch64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, halves, minus_where_not, nibbles, signed, where_set};

/// See `formats/q5_0.rs` for the layout.
pub(in crate::aarch64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q5_0;
    const SCALES: usize = 8;
    const OFFSETS: usize = 0;

    #[inline(always)]
    unsafe fn head(group: *const u8, blocks: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe { Head::of(halves(group, 22, blocks)) }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let block = group.add(22 * b);
            signed(minus_where_not(nibbles(block.add(6)), where_set(block.add(2)), 16))
        }
    }
}
