//! Q2_K: w = q * sc <= 3 * 15 = 45; 32 products per lane: 32 * 45 * 32767 < 2^31.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Weights, half, scaled, widened};

/// See `formats/q2_k.rs` for the layout.
pub(super) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q2_K;
    const SPANS: usize = 1;
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
    unsafe fn load(group: *const u8, head: &Head, b: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let q = group.add(16 + 32 * (b / 4));
            let shift = _mm_cvtsi32_si128(2 * (b % 4) as i32);
            let three = _mm256_set1_epi16(3);
            let part = |at| _mm256_and_si256(_mm256_srl_epi16(widened(at), shift), three);
            scaled([part(q), part(q.add(16))], head, b)
        }
    }
}
