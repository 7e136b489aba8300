//! IQ4_NL: w = codebook[q], |w| <= 127.

use std::arch::aarch64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, halves, looked_up};
use crate::formats::CODEBOOK;

/// See `formats/iq4_nl.rs` for the layout.
pub(in crate::aarch64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::IQ4_NL;
    const SCALES: usize = 8;
    const OFFSETS: usize = 0;

    #[inline(always)]
    unsafe fn head(group: *const u8, blocks: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe { Head::of(halves(group, 18, blocks)) }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        unsafe { looked_up(group.add(18 * b + 2), &CODEBOOK) }
    }
}
