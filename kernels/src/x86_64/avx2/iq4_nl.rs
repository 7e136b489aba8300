//! IQ4_NL: w = codebook[q], |w| <= 127; 4 products per lane: 4 * 127 * 32767 < 2^31.

use std::arch::x86_64::__m256i;

use cchaha_plan::Format;

use super::weights::{Head, Weights, halves, looked_up};
use crate::formats::CODEBOOK;

/// See `formats/iq4_nl.rs` for the layout.
pub(super) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::IQ4_NL;
    const SPANS: usize = 8;
    const OFFSETS: usize = 0;

    #[inline(always)]
    unsafe fn head(group: *const u8, blocks: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe { Head { scale: halves(group, 18, blocks), ..Head::EMPTY } }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, _: &[i32; 16], b: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe { looked_up(group.add(18 * b + 2), &CODEBOOK) }
    }
}
