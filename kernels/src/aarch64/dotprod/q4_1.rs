//! Q4_1: w = q <= 15.

use std::arch::aarch64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, halves, nibbles, signed};

/// See `formats/q4_1.rs` for the layout.
pub(in crate::aarch64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q4_1;
    const SCALES: usize = 8;
    const OFFSETS: usize = 8;

    #[inline(always)]
    unsafe fn head(group: *const u8, blocks: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            let mut head = Head::of(halves(group, 20, blocks));
            head.offset[..2].copy_from_slice(&halves(group.add(2), 20, blocks));
            head
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        unsafe { signed(nibbles(group.add(20 * b + 4))) }
    }
}
