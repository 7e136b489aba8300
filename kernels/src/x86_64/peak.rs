//! Loops of nothing but 8-bit products: what the processor multiplies at best ([`crate::Roofs`]).
//!
//! Ones are multiplied with ones and every loop returns the sum of its products, so that it counts what was really done. Twelve sums
//! hide the latency of two units.

use std::arch::x86_64::*;
use std::hint::black_box;

use super::avx2::weights::opaque;
use crate::isa::{Avx2, Avx512};

const SUMS: usize = 12;

/// 64 products in an instruction, added in fours to 32 bits.
pub(crate) fn vpdpbusd(rounds: usize) -> u64 {
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn compiled(_: Avx512, rounds: usize) -> u64 {
        let (a, b) = black_box((_mm512_set1_epi8(1), _mm512_set1_epi8(1)));
        let mut sums = [_mm512_setzero_si512(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        sums.into_iter().map(|sum| _mm512_reduce_add_epi32(sum) as u64).sum()
    }
    let token = Avx512::new().expect("invariant: called where AVX-512 is");
    // SAFETY: the token proves that the instructions are there.
    unsafe { compiled(token, rounds) }
}

/// 32 products in two instructions, added in twos to 16 bits; to widen these sums now and then is left out. At most 2^14 - 1 rounds.
pub(crate) fn vpmaddubsw(rounds: usize) -> u64 {
    #[target_feature(enable = "avx2")]
    fn compiled(_: Avx2, rounds: usize) -> u64 {
        let (mut a, b) = black_box((_mm256_set1_epi8(1), _mm256_set1_epi8(1)));
        let mut sums = [_mm256_setzero_si256(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                // SAFETY: the caller has AVX2. Otherwise one product would serve all rounds.
                a = unsafe { opaque(a) };
                *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(a, b));
            }
        }
        let wide = sums.map(|sum| _mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
        // SAFETY: vectors and arrays of as many bytes, any of which are numbers.
        let lanes: [[i32; 8]; SUMS] = unsafe { std::mem::transmute(wide) };
        lanes.iter().flatten().map(|&lane| lane as u64).sum()
    }
    let token = Avx2::new().expect("invariant: called where AVX2 is");
    // SAFETY: the token proves that the instructions are there.
    unsafe { compiled(token, rounds) }
}
