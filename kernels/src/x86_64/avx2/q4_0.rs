//! Q4_0: q <= 15, 8 above the value.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Sub, Weights, around, nibbles};

/// See `formats/q4_0.rs` for the layout.
pub(in crate::x86_64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q4_0;
    const SIGNED: bool = false;
    const MOST: u8 = 15;
    const ZERO: u8 = 8;
    const SUB: Sub = Sub::None;
    const OFFSETS: usize = 8;

    #[inline(always)]
    unsafe fn head(group: *const u8, blocks: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe { around(Self::ZERO, group, 18, blocks) }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { nibbles(group.add(18 * b + 2)) }
    }
}
