//! Q3_K: w = (q - 4) * (sc - 32), |w| <= 4 * 32 = 128; 32 products per lane: 32 * 128 * 32767 = 134213632 < 2^31.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::q2_k::two_bits;
use super::weights::{Head, Weights, half, scaled, twice, widened};

/// See `formats/q3_k.rs` for the layout.
pub(super) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q3_K;
    const SPANS: usize = 1;
    const OFFSETS: usize = 0;

    #[inline(always)]
    unsafe fn head(group: *const u8, _: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe {
            let mut head = Head::EMPTY;
            head.scale[0] = half(group.add(108));
            for s in 0..16 {
                let low = group.add(96 + s % 8).read() >> (4 * (s / 8)) & 15;
                let high = group.add(104 + s % 4).read() >> (2 * (s / 4)) & 3;
                head.sub[s] = twice(i16::from(low | high << 4) - 32);
            }
            head
        }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, sub: &[i32; 16], b: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let q = group.add(32 + 32 * (b / 4));
            scaled([run(q, group, b), run(q.add(16), group.add(16), b)], sub[2 * b], sub[2 * b + 1])
        }
    }
}

/// 16 values from 16 bytes of lower and 16 of upper bits.
#[inline(always)]
unsafe fn run(low: *const u8, high: *const u8, b: usize) -> __m256i {
    // SAFETY: the caller has AVX2 and both runs.
    unsafe {
        let q = two_bits(widened(low), b % 4);
        // Where bit 2 is clear the value is q - 4.
        let bit = _mm256_set1_epi16(1 << b);
        let clear = _mm256_cmpeq_epi16(_mm256_and_si256(widened(high), bit), _mm256_setzero_si256());
        _mm256_sub_epi16(q, _mm256_and_si256(clear, _mm256_set1_epi16(4)))
    }
}
