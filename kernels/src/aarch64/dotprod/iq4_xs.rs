//! IQ4_XS: w = codebook[q], |w| <= 127.

use std::arch::aarch64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, floats, half, looked_up};
use crate::formats::CODEBOOK;

/// See `formats/iq4_xs.rs` for the layout.
pub(in crate::aarch64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::IQ4_XS;
    const SCALES: usize = 8;
    const OFFSETS: usize = 0;

    #[inline(always)]
    unsafe fn head(group: *const u8, _: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            // Scale k: nibble k of four bytes, and bits 2 k and 2 k + 1 of two.
            let low = vdupq_n_u32(group.add(4).cast::<u32>().read_unaligned());
            let low = vshlq_u32(low, vld1q_s32([0, -8, -16, -24].as_ptr()));
            let low = vreinterpretq_u16_u32(vorrq_u32(
                vandq_u32(low, vdupq_n_u32(15)),
                vshlq_n_u32::<12>(vandq_u32(low, vdupq_n_u32(0xF0))),
            ));
            let high = vdupq_n_u16(group.add(2).cast::<u16>().read_unaligned());
            let high = vshlq_u16(high, vld1q_s16([0, -2, -4, -6, -8, -10, -12, -14].as_ptr()));
            let sc = vorrq_u16(low, vshlq_n_u16::<4>(vandq_u16(high, vdupq_n_u16(3))));
            let sc = floats(vsubq_s16(vreinterpretq_s16_u16(sc), vdupq_n_s16(32)));
            let d = half(group);
            Head::of(sc.map(|sc| vmulq_n_f32(sc, d)))
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        unsafe { looked_up(group.add(8 + 16 * b), &CODEBOOK) }
    }
}
