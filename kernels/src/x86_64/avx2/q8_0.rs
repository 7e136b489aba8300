//! Q8_0: w = q, |w| <= 128; 4 products per lane: 4 * 128 * 32767 = 16776704 < 2^31.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, bytes16, halves};

/// See `formats/q8_0.rs` for the layout.
pub(super) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q8_0;
    const SPANS: usize = 8;
    const OFFSETS: usize = 0;

    #[inline(always)]
    unsafe fn head(group: *const u8, blocks: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe { Head { scale: halves(group, 34, blocks), ..Head::EMPTY } }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, _: &[i32; 16], b: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let q = group.add(34 * b + 2);
            [_mm256_cvtepi8_epi16(bytes16(q)), _mm256_cvtepi8_epi16(bytes16(q.add(16)))]
        }
    }
}
