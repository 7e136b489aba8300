//! Q8_0: |q| <= 128.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Sub, Weights, bytes32, halves};

/// See `formats/q8_0.rs` for the layout.
pub(in crate::x86_64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q8_0;
    const SIGNED: bool = true;
    const MOST: u8 = 128;
    const SUB: Sub = Sub::None;
    const OFFSETS: usize = 0;

    #[inline(always)]
    unsafe fn head(group: *const u8, blocks: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe { Head { scale: halves(group, 34, blocks), ..Head::EMPTY } }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { bytes32(group.add(34 * b + 2)) }
    }
}
