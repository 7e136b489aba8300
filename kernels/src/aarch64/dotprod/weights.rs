//! What a quantized format tells the matrix loop: how to turn 32 values into two vectors of signed bytes.
//!
//! All are signed, as `sdot` and `smmla` want them; where the value 0 is not 0 in the file, the difference is taken off here for
//! one instruction or none, and not through the sums of activations.

use std::arch::aarch64::*;

use cchaha_plan::Format;

use crate::aarch64::neon::widened;

/// Scales and offsets of a group of 256 values, [`Weights::SCALES`] and [`Weights::OFFSETS`] of them.
#[derive(Clone, Copy)]
pub(in crate::aarch64) struct Head {
    pub(in crate::aarch64) scale: [float32x4_t; 4],
    pub(in crate::aarch64) offset: [float32x4_t; 4],
}

impl Head {
    /// All zeros.
    ///
    /// # Safety
    /// NEON.
    #[inline(always)]
    pub(super) unsafe fn empty() -> Head {
        // SAFETY: the caller has NEON.
        let zero = [unsafe { vdupq_n_f32(0.0) }; 4];
        Head { scale: zero, offset: zero }
    }

    /// Of eight scales.
    ///
    /// # Safety
    /// NEON.
    #[inline(always)]
    pub(super) unsafe fn of(scale: [float32x4_t; 2]) -> Head {
        // SAFETY: the caller has NEON.
        let mut head = unsafe { Head::empty() };
        head.scale[..2].copy_from_slice(&scale);
        head
    }
}

/// A format, 256 values at a time.
///
/// ```text
/// value = scale[..] * w + offset[..],   w: i8
/// ```
/// The i32 sum under a scale is at most 32 * 128 * [`crate::activations::LARGEST`] = 133689344 < 2^31 for every format. A scale may
/// be the product of an f16 (11 bits) and an integer (at most 8 bits), which f32 holds.
pub(in crate::aarch64) trait Weights {
    const FORMAT: Format;
    /// Scales in a group: 8 (per 32 values) or 16 (per 16 values).
    const SCALES: usize;
    /// Offsets in a group: 0, 8 (per 32 values) or 16 (per 16 values).
    const OFFSETS: usize;
    /// Bytes of a group.
    const BYTES: usize = 256 / Self::FORMAT.block_len() * Self::FORMAT.block_bytes();

    /// Scales and offsets of `blocks` (1 to 8) runs of 32 values; zeros after them.
    ///
    /// # Safety
    /// NEON, and `group` points at that many.
    unsafe fn head(group: *const u8, blocks: usize) -> Head;

    /// `w` of run `b` of 32 values.
    ///
    /// # Safety
    /// NEON, and `group` holds run `b`.
    unsafe fn load(group: *const u8, b: usize) -> [int8x16_t; 2];
}

/// The f16 at the start of `blocks` blocks of `stride` bytes, as f32; zeros after them.
///
/// # Safety
/// NEON, and the blocks are readable.
#[inline(always)]
pub(super) unsafe fn halves(first: *const u8, stride: usize, blocks: usize) -> [float32x4_t; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut bits = vdupq_n_u16(0);
        macro_rules! lanes {
            ($($b:literal)*) => {$(
                if $b < blocks {
                    bits = vsetq_lane_u16::<$b>(first.add($b * stride).cast::<u16>().read_unaligned(), bits);
                }
            )*};
        }
        lanes!(0 1 2 3 4 5 6 7);
        widened(bits)
    }
}

/// One f16.
///
/// # Safety
/// NEON, and two readable bytes.
#[inline(always)]
pub(super) unsafe fn half(at: *const u8) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let bits = vdup_n_u16(at.cast::<u16>().read_unaligned());
        vgetq_lane_f32::<0>(vcvt_f32_f16(vreinterpret_f16_u16(bits)))
    }
}

/// Eight signed integers as f32.
///
/// # Safety
/// NEON.
#[inline(always)]
pub(super) unsafe fn floats(x: int16x8_t) -> [float32x4_t; 2] {
    // SAFETY: the caller has NEON.
    unsafe { [vcvtq_f32_s32(vmovl_s16(vget_low_s16(x))), vcvtq_f32_s32(vmovl_high_s16(x))] }
}

/// Sixteen signed bytes times `factor`.
///
/// # Safety
/// NEON.
#[inline(always)]
pub(super) unsafe fn scaled(x: int8x16_t, factor: f32) -> [float32x4_t; 4] {
    // SAFETY: the caller has NEON.
    unsafe {
        let ([a, b], [c, d]) = (floats(vmovl_s8(vget_low_s8(x))), floats(vmovl_high_s8(x)));
        [a, b, c, d].map(|x| vmulq_n_f32(x, factor))
    }
}

/// 16 bytes.
///
/// # Safety
/// NEON; readable.
#[inline(always)]
pub(super) unsafe fn bytes16(at: *const u8) -> uint8x16_t {
    // SAFETY: the caller's promise.
    unsafe { vld1q_u8(at) }
}

/// 32 bytes.
///
/// # Safety
/// NEON; readable.
#[inline(always)]
pub(super) unsafe fn bytes32(at: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller's promise.
    unsafe { [bytes16(at), bytes16(at.add(16))] }
}

/// As signed bytes.
///
/// # Safety
/// NEON.
#[inline(always)]
pub(super) unsafe fn signed(x: [uint8x16_t; 2]) -> [int8x16_t; 2] {
    // SAFETY: the caller has NEON.
    unsafe { [vreinterpretq_s8_u8(x[0]), vreinterpretq_s8_u8(x[1])] }
}

/// The low nibbles of 16 bytes, then the high ones.
///
/// # Safety
/// NEON; readable.
#[inline(always)]
pub(super) unsafe fn nibbles(at: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let x = bytes16(at);
        [vandq_u8(x, vdupq_n_u8(15)), vshrq_n_u8::<4>(x)]
    }
}

/// The low (`which` 0) or high (1) nibble of every byte.
///
/// # Safety
/// NEON.
#[inline(always)]
pub(super) unsafe fn nibble(x: [uint8x16_t; 2], which: usize) -> [uint8x16_t; 2] {
    // SAFETY: the caller has NEON.
    unsafe {
        if which == 0 {
            let low = vdupq_n_u8(15);
            [vandq_u8(x[0], low), vandq_u8(x[1], low)]
        } else {
            [vshrq_n_u8::<4>(x[0]), vshrq_n_u8::<4>(x[1])]
        }
    }
}

/// The low, then the high nibbles of 16 bytes, through a table of 16 signed bytes.
///
/// # Safety
/// NEON; readable.
#[inline(always)]
pub(super) unsafe fn looked_up(at: *const u8, table: &[i8; 16]) -> [int8x16_t; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let (table, [low, high]) = (vld1q_s8(table.as_ptr()), nibbles(at));
        [vqtbl1q_s8(table, low), vqtbl1q_s8(table, high)]
    }
}

/// All ones in the bytes whose bit is set among the 32 bits at `at`, 0 in the others.
///
/// # Safety
/// NEON; readable.
#[inline(always)]
pub(super) unsafe fn where_set(at: *const u8) -> [uint8x16_t; 2] {
    const EIGHT_EACH: [[u8; 16]; 2] =
        [[0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3]];
    // SAFETY: the caller's promise.
    unsafe {
        let word = vreinterpretq_u8_u32(vdupq_n_u32(at.cast::<u32>().read_unaligned()));
        let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
        [
            vtstq_u8(vqtbl1q_u8(word, vld1q_u8(EIGHT_EACH[0].as_ptr())), bit),
            vtstq_u8(vqtbl1q_u8(word, vld1q_u8(EIGHT_EACH[1].as_ptr())), bit),
        ]
    }
}

/// All ones in the bytes whose bit `bit` is set, 0 in the others.
///
/// # Safety
/// NEON.
#[inline(always)]
pub(super) unsafe fn where_bit(x: [uint8x16_t; 2], bit: usize) -> [uint8x16_t; 2] {
    // SAFETY: the caller has NEON.
    unsafe {
        let bit = vdupq_n_u8(1 << bit);
        [vtstq_u8(x[0], bit), vtstq_u8(x[1], bit)]
    }
}

/// `x` with the bits of `bits` set where `mask` is set.
///
/// # Safety
/// NEON.
#[inline(always)]
pub(super) unsafe fn set_where(x: [uint8x16_t; 2], mask: [uint8x16_t; 2], bits: u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller has NEON.
    unsafe {
        let bits = vdupq_n_u8(bits);
        [vorrq_u8(x[0], vandq_u8(mask[0], bits)), vorrq_u8(x[1], vandq_u8(mask[1], bits))]
    }
}

/// `x - zero` where `mask` is not set, for `x < zero` and a `zero` that is a power of two; `x` elsewhere. All the bits from
/// `zero` on are set, as they are in a small negative number.
///
/// # Safety
/// NEON.
#[inline(always)]
pub(super) unsafe fn minus_where_not(x: [uint8x16_t; 2], mask: [uint8x16_t; 2], zero: u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller has NEON.
    unsafe {
        let bits = vdupq_n_u8(zero.wrapping_neg());
        [vorrq_u8(x[0], vbicq_u8(bits, mask[0])), vorrq_u8(x[1], vbicq_u8(bits, mask[1]))]
    }
}

/// Bits `2 part` and `2 part + 1` of every byte, moved to bits `to` (0 or 4) and `to + 1`.
///
/// # Safety
/// NEON.
#[inline(always)]
pub(super) unsafe fn two_bits(x: [uint8x16_t; 2], part: usize, to: usize) -> [uint8x16_t; 2] {
    // SAFETY: the caller has NEON.
    unsafe {
        let mask = vdupq_n_u8(3 << to);
        x.map(|x| {
            let moved = match to as i32 - 2 * part as i32 {
                4.. => vshlq_n_u8::<4>(x),
                2 | 3 => vshlq_n_u8::<2>(x),
                0 | 1 => x,
                -2 | -1 => vshrq_n_u8::<2>(x),
                -4 | -3 => vshrq_n_u8::<4>(x),
                _ => vshrq_n_u8::<6>(x),
            };
            vandq_u8(moved, mask)
        })
    }
}
