//! MXFP4: w = twice the E2M1 number, |w| <= 12.

use std::arch::aarch64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, looked_up};
use crate::formats::{E2M1_DOUBLED, half_scale};

/// See `formats/mxfp4.rs` for the layout.
pub(in crate::aarch64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::MXFP4;
    const SCALES: usize = 8;
    const OFFSETS: usize = 0;

    #[inline(always)]
    unsafe fn head(group: *const u8, blocks: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            let mut scale = [0.0; 8];
            for (b, scale) in scale.iter_mut().enumerate().take(blocks) {
                *scale = half_scale(group.add(17 * b).read());
            }
            Head::of([vld1q_f32(scale.as_ptr()), vld1q_f32(scale.as_ptr().add(4))])
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        unsafe { looked_up(group.add(17 * b + 1), &E2M1_DOUBLED) }
    }
}
