//! Q3_K: w = q - 4, |w| <= 4.

use std::arch::aarch64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, bytes32, half, minus_where_not, scaled, signed, two_bits, where_bit};

/// See `formats/q3_k.rs` for the layout.
pub(in crate::aarch64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q3_K;
    const SCALES: usize = 16;
    const OFFSETS: usize = 0;

    #[inline(always)]
    unsafe fn head(group: *const u8, _: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            let low = vcombine_u8(vld1_u8(group.add(96)), vdup_n_u8(0));
            let low =
                vcombine_u8(vget_low_u8(vandq_u8(low, vdupq_n_u8(15))), vget_low_u8(vshrq_n_u8::<4>(low)));
            let high = vdupq_n_u32(group.add(104).cast::<u32>().read_unaligned());
            // Four scales take the first two bits of four bytes, the next four the next two bits.
            let high = vreinterpretq_u8_u32(vshlq_u32(high, vld1q_s32([0, -2, -4, -6].as_ptr())));
            let sc = vorrq_u8(low, vshlq_n_u8::<4>(vandq_u8(high, vdupq_n_u8(3))));
            let sc = vsubq_s8(vreinterpretq_s8_u8(sc), vdupq_n_s8(32));
            Head { scale: scaled(sc, half(group.add(108))), ..Head::empty() }
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let low = two_bits(bytes32(group.add(32 + 32 * (b / 4))), b % 4, 0);
            signed(minus_where_not(low, where_bit(bytes32(group), b), 4))
        }
    }
}
