//! Q4_K: w = q <= 15.

use std::arch::aarch64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, bytes32, half, nibble, scaled, signed};

/// See `formats/q4_k.rs` for the layout.
pub(in crate::aarch64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q4_K;
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
        unsafe { signed(nibble(bytes32(group.add(16 + 32 * (b / 2))), b % 2)) }
    }
}

/// The first 16 bytes of Q4_K and Q5_K blocks: `sc` and `m` are eight 6-bit numbers each.
///
/// # Safety
/// NEON; 16 readable bytes.
#[inline(always)]
pub(super) unsafe fn head_of(group: *const u8) -> Head {
    // SAFETY: the caller's promise.
    unsafe {
        let word = |at: usize| group.add(at).cast::<u32>().read_unaligned();
        let (scs, ms, low) = (word(4), word(8), word(12));
        // Four 6-bit numbers per word, one per byte.
        let sc = [scs & 0x3f3f_3f3f, (low & 0x0f0f_0f0f) | (scs >> 2 & 0x3030_3030)];
        let m = [ms & 0x3f3f_3f3f, (low >> 4 & 0x0f0f_0f0f) | (ms >> 2 & 0x3030_3030)];
        let bytes = |x: [u32; 2]| vcreate_s8(u64::from(x[0]) | u64::from(x[1]) << 32);
        let [a, b, c, e] = scaled(vcombine_s8(bytes(sc), bytes(m)), 1.0);
        let (d, dmin) = (half(group), -half(group.add(2)));
        let mut head = Head::of([vmulq_n_f32(a, d), vmulq_n_f32(b, d)]);
        (head.offset[0], head.offset[1]) = (vmulq_n_f32(c, dmin), vmulq_n_f32(e, dmin));
        head
    }
}
