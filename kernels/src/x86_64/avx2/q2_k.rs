//! Q2_K: q <= 3, scaled by sc <= 15 for each half of a run.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Sub, Weights, bytes32, half, shifted};

/// See `formats/q2_k.rs` for the layout.
pub(in crate::x86_64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q2_K;
    const SIGNED: bool = false;
    const MOST: u8 = 3;
    const SUB: Sub = Sub::Halves;
    const OFFSETS: usize = 16;

    #[inline(always)]
    unsafe fn head(group: *const u8, _: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            let mut head = Head::EMPTY;
            let (d, dmin) = (half(group.add(80)), half(group.add(82)));
            head.scale[0] = d;
            for s in 0..16 {
                let byte = group.add(s).read();
                head.sub[s] = i16::from(byte & 15);
                head.offset[s] = -(dmin * f32::from(byte >> 4));
            }
            head
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { two_bits(group.add(16 + 32 * (b / 4)), b % 4) }
    }
}

/// Bits `2 part` and `2 part + 1` of 32 bytes.
///
/// # Safety
/// AVX2; readable.
#[inline(always)]
pub(in crate::x86_64) unsafe fn two_bits(at: *const u8, part: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_and_si256(shifted(bytes32(at), -2 * part as i32), _mm256_set1_epi8(3)) }
}
