//! Q4_0: w = 16 (q - 8), |w| <= 128: a nibble whose upper bit is flipped is q - 8 in four bits, and one shift or mask brings
//! it to the top of its byte.

use std::arch::aarch64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, bytes16, halves, signed};

/// See `formats/q4_0.rs` for the layout.
pub(in crate::aarch64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q4_0;
    const SCALES: usize = 8;
    const OFFSETS: usize = 0;

    #[inline(always)]
    unsafe fn head(group: *const u8, blocks: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            let scale = halves(group, 18, blocks);
            Head::of(scale.map(|scale| vmulq_n_f32(scale, 1.0 / 16.0)))
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let q = veorq_u8(bytes16(group.add(18 * b + 2)), vdupq_n_u8(0x88));
            signed([vshlq_n_u8::<4>(q), vandq_u8(q, vdupq_n_u8(0xF0))])
        }
    }
}
