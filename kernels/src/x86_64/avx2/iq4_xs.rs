//! IQ4_XS: q is a number of the codebook, |q| <= 127, scaled by sc - 32 for each run.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Sub, Weights, half, looked_up};
use crate::formats::CODEBOOK;

/// See `formats/iq4_xs.rs` for the layout.
pub(in crate::x86_64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::IQ4_XS;
    const SIGNED: bool = true;
    const MOST: u8 = 127;
    const SUB: Sub = Sub::Runs;
    const OFFSETS: usize = 0;

    #[inline(always)]
    unsafe fn head(group: *const u8, _: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            let d = half(group);
            let high = group.add(2).cast::<u16>().read_unaligned();
            let mut head = Head::EMPTY;
            head.scale[0] = d;
            for k in 0..8 {
                let low = group.add(4 + k / 2).read() >> (4 * (k % 2)) & 15;
                let sc = i16::from(low) + ((high >> (2 * k) & 3) << 4) as i16 - 32;
                (head.sub[2 * k], head.sub[2 * k + 1]) = (sc, sc);
            }
            head
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { looked_up(group.add(8 + 16 * b), &CODEBOOK) }
    }
}
