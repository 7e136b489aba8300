//! Q6_K: w = q - 32, |w| <= 32.

use std::arch::aarch64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, bytes16, bytes32, half, nibble, scaled, two_bits};

/// See `formats/q6_k.rs` for the layout.
pub(in crate::aarch64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q6_K;
    const SCALES: usize = 16;
    const OFFSETS: usize = 0;

    #[inline(always)]
    unsafe fn head(group: *const u8, _: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            let sc = vreinterpretq_s8_u8(bytes16(group.add(192)));
            Head { scale: scaled(sc, half(group.add(208))), ..Head::empty() }
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            // Run `b` of 128 values: 64 bytes of nibbles (low in runs 0 and 1, high in 2 and 3), 32 bytes of upper bits.
            let (chunk, part) = (b / 4, b % 4);
            let low = nibble(bytes32(group.add(64 * chunk + 32 * (part % 2))), part / 2);
            let upper = two_bits(bytes32(group.add(128 + 32 * chunk)), part, 4);
            let zero = vdupq_n_s8(32);
            [0, 1].map(|i| vsubq_s8(vreinterpretq_s8_u8(vorrq_u8(low[i], upper[i])), zero))
        }
    }
}
