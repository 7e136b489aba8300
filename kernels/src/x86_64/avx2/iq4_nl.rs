//! IQ4_NL: q is a number of the codebook, |q| <= 127.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Sub, Weights, halves, looked_up};
use crate::formats::CODEBOOK;

/// See `formats/iq4_nl.rs` for the layout.
pub(in crate::x86_64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::IQ4_NL;
    const SIGNED: bool = true;
    const MOST: u8 = 127;
    const SUB: Sub = Sub::None;
    const OFFSETS: usize = 0;

    #[inline(always)]
    unsafe fn head(group: *const u8, blocks: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe { Head { scale: halves(group, 18, blocks), ..Head::EMPTY } }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { looked_up(group.add(18 * b + 2), &CODEBOOK) }
    }
}
