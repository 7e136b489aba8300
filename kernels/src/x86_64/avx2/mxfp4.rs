//! MXFP4: q is twice the E2M1 number, |q| <= 12.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Sub, Weights, looked_up};
use crate::formats::{E2M1_DOUBLED, half_scale};

/// See `formats/mxfp4.rs` for the layout.
pub(in crate::x86_64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::MXFP4;
    const SIGNED: bool = true;
    const MOST: u8 = 12;
    const SUB: Sub = Sub::None;
    const OFFSETS: usize = 0;

    #[inline(always)]
    unsafe fn head(group: *const u8, blocks: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            let mut head = Head::EMPTY;
            for (b, scale) in head.scale.iter_mut().enumerate().take(blocks) {
                *scale = half_scale(group.add(17 * b).read());
            }
            head
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { looked_up(group.add(17 * b + 1), &E2M1_DOUBLED) }
    }
}
