//! Activations for the AVX-512 kernels: as AVX2 quantizes them to 16 bits, then spread over lanes as the weights are.
//!
//! ```text
//! halves   the upper and the lower bytes, as in avx2/quantize_coarse.rs
//! sums16   of columns 0 to 15 of every run, then of columns 16 to 31
//! ```

use super::super::avx2::quantize_coarse::spread_group;
use super::{avx2, token};
use crate::activations::{GROUP, Group, Halves};

/// Quantizes one row to 16 bits into `halves` and `groups`, `x.len().div_ceil(256)` of them.
pub(crate) fn quantize(x: &[f32], [upper, lower]: Halves<'_>, groups: &mut [Group]) {
    token();
    avx2::quantize_runs(x, [&mut *upper, &mut *lower], groups);
    groups.iter_mut().for_each(avx2::by_halves);
    for (g, (group, (upper, lower))) in groups.iter().zip(upper.iter_mut().zip(lower)).enumerate() {
        // SAFETY: the token proves that the instructions are there.
        unsafe {
            spread_group(x.len() - g * GROUP, &group.planes, 0, upper);
            spread_group(x.len() - g * GROUP, &group.planes, 1, lower);
        }
    }
}
