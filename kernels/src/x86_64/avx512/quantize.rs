//! Activations for the AVX-512 kernels: as AVX2 quantizes them, then spread over lanes as the weights are.
//!
//! ```text
//! lines    per step of N runs (super::lanes): 2 N vectors of 8 lanes of two i16:
//!          columns (4 j, 4 j + 2), then (4 j + 1, 4 j + 3), for every j that spread gives
//! sums16   of columns 0 to 15 of every run, then of columns 16 to 31
//! ```

use std::arch::x86_64::*;

use super::avx2;
use super::lanes::spread;
use super::product::steps;
use super::token;
use crate::activations::{GROUP, GROUP_LINES, Group, Line, Lines};

/// Quantizes one row into `lines` and `groups`, `x.len().div_ceil(256)` of them.
pub(crate) fn quantize(x: &[f32], lines: &mut [Lines], groups: &mut [Group]) {
    token();
    avx2::quantize(x, lines, groups);
    for (g, (lines, group)) in lines.iter_mut().zip(groups).enumerate() {
        let sums = group.sums16;
        for (run, pair) in sums.as_chunks::<2>().0.iter().enumerate() {
            (group.sums16[run], group.sums16[run + 8]) = (pair[0], pair[1]);
        }
        for (first, runs) in steps((x.len() - g * GROUP).div_ceil(32).min(GROUP_LINES)) {
            let lines = &mut lines[first..first + runs];
            // SAFETY: the token proves that the instructions are there.
            unsafe {
                match runs {
                    8 => spread_lines::<8>(lines),
                    4 => spread_lines::<4>(lines),
                    2 => spread_lines::<2>(lines),
                    _ => spread_lines::<1>(lines),
                }
            }
        }
    }
}

#[target_feature(enable = "avx2")]
fn spread_lines<const N: usize>(lines: &mut [Line]) {
    let lines: &mut [Line; N] = lines.as_mut_array().expect("invariant: a step has its lines");
    let mut halves = [[_mm256_setzero_si256(); 8]; 2];
    // SAFETY: a line is two vectors, and aligned; AVX2 is there.
    unsafe {
        for (b, line) in lines.iter().enumerate() {
            let line = line.0.as_ptr().cast::<__m256i>();
            (halves[0][b], halves[1][b]) = (_mm256_load_si256(line), _mm256_load_si256(line.add(1)));
        }
        spread::<N>(&mut halves[0]);
        spread::<N>(&mut halves[1]);
        for (j, line) in lines.iter_mut().enumerate() {
            let line = line.0.as_mut_ptr().cast::<__m256i>();
            _mm256_store_si256(line, halves[0][j]);
            _mm256_store_si256(line.add(1), halves[1][j]);
        }
    }
}
