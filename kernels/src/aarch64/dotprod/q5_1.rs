//! Q5_1: w = q <= 31.

use std::arch::aarch64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, halves, nibbles, set_where, signed, where_set};

/// See `formats/q5_1.rs` for the layout.
pub(in crate::aarch64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q5_1;
    const SCALES: usize = 8;
    const OFFSETS: usize = 8;

    #[inline(always)]
    unsafe fn head(group: *const u8, blocks: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            let mut head = Head::of(halves(group, 24, blocks));
            head.offset[..2].copy_from_slice(&halves(group.add(2), 24, blocks));
            head
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let block = group.add(24 * b);
            signed(set_where(nibbles(block.add(8)), where_set(block.add(4)), 16))
        }
    }
}
