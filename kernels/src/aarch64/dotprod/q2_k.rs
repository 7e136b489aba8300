//! Q2_K: w = q <= 3.

use std::arch::aarch64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, bytes32, half, nibbles, scaled, signed, two_bits};

/// See `formats/q2_k.rs` for the layout.
pub(in crate::aarch64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q2_K;
    const SCALES: usize = 16;
    const OFFSETS: usize = 16;

    #[inline(always)]
    unsafe fn head(group: *const u8, _: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            let (d, dmin) = (half(group.add(80)), half(group.add(82)));
            let [sc, m] = signed(nibbles(group));
            Head { scale: scaled(sc, d), offset: scaled(m, -dmin) }
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        unsafe { signed(two_bits(bytes32(group.add(16 + 32 * (b / 4))), b % 4, 0)) }
    }
}
