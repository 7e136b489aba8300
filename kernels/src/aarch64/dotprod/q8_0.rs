//! Q8_0: w = q, |w| <= 128.

use std::arch::aarch64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, bytes32, halves, signed};

/// See `formats/q8_0.rs` for the layout.
pub(in crate::aarch64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q8_0;
    const SCALES: usize = 8;
    const OFFSETS: usize = 0;

    #[inline(always)]
    unsafe fn head(group: *const u8, blocks: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe { Head::of(halves(group, 34, blocks)) }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        unsafe { signed(bytes32(group.add(34 * b + 2))) }
    }
}
