//! Q5_K: w = q <= 31.

use std::arch::aarch64::*;

use cchaha_plan::Format;

use super::q4_k::head_of;
use super::weights::{Head, Weights, bytes32, nibble, set_where, signed, where_bit};

/// See `formats/q5_k.rs` for the layout.
pub(in crate::aarch64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q5_K;
    const SCALES: usize = 8;
    const OFFSETS: usize = 8;

    #[inline(always)]
    unsafe fn head(group: *const u8, _: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe { head_of(group) }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let low = nibble(bytes32(group.add(48 + 32 * (b / 2))), b % 2);
            signed(set_where(low, where_bit(bytes32(group.add(16)), b), 16))
        }
    }
}
