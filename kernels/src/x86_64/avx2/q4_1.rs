//! Q4_1: q <= 15.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Sub, Weights, halves, nibbles};

/// See `formats/q4_1.rs` for the layout.
pub(in crate::x86_64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q4_1;
    const SIGNED: bool = false;
    const MOST: u8 = 15;
    const SUB: Sub = Sub::None;
    const OFFSETS: usize = 8;

    #[inline(always)]
    unsafe fn head(group: *const u8, blocks: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            let mut head = Head { scale: halves(group, 20, blocks), ..Head::EMPTY };
            head.offset[..8].copy_from_slice(&halves(group.add(2), 20, blocks));
            head
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { nibbles(group.add(20 * b + 4)) }
    }
}
