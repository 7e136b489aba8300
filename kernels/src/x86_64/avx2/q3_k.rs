//! Q3_K: q <= 7, 4 above the value, scaled by sc - 32 for each half of a run.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::q2_k::two_bits;
use super::weights::{Head, Sub, Weights, bytes32, half, moved};

/// See `formats/q3_k.rs` for the layout.
pub(in crate::x86_64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q3_K;
    const SIGNED: bool = false;
    const MOST: u8 = 7;
    const ZERO: u8 = 4;
    const SUB: Sub = Sub::Halves;
    const OFFSETS: usize = 16;

    #[inline(always)]
    unsafe fn head(group: *const u8, _: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            let mut head = Head::EMPTY;
            let d = half(group.add(108));
            head.scale[0] = d;
            for s in 0..16 {
                let low = group.add(96 + s % 8).read() >> (4 * (s / 8)) & 15;
                let high = group.add(104 + s % 4).read() >> (2 * (s / 4)) & 3;
                head.sub[s] = i16::from(low | high << 4) - 32;
                head.offset[s] = -f32::from(Self::ZERO) * d * f32::from(head.sub[s]);
            }
            head
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_or_si256(two_bits(group.add(32 + 32 * (b / 4)), b % 4), moved(bytes32(group), b, 2)) }
    }
}
