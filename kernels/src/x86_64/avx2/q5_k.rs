//! Q5_K: q <= 31, scaled by sc <= 63 for each run.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::q4_k::head_of;
use super::weights::{Head, Sub, Weights, bytes32, moved, nibble};

/// See `formats/q5_k.rs` for the layout.
pub(in crate::x86_64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q5_K;
    const SIGNED: bool = false;
    const MOST: u8 = 31;
    const SUB: Sub = Sub::Runs;
    const OFFSETS: usize = 8;

    #[inline(always)]
    unsafe fn head(group: *const u8, _: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe { head_of(group) }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let low = nibble(bytes32(group.add(48 + 32 * (b / 2))), b % 2);
            _mm256_or_si256(low, moved(bytes32(group.add(16)), b, 4))
        }
    }
}
