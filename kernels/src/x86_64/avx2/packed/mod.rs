//! Rows four by four, their columns spread over lanes once and for all: what decoding reads after the first tokens.
//!
//! ```text
//! four     [step of 256 columns]... [step of 128, where there are so many more] [what is no whole step, row after row, as stored]
//! step     [heads of rows 0 and 1][of 2 and 3][planes of rows 0 and 1][of 2 and 3], as many bytes as stored
//! planes   of N = 8 (in a step of 128, 4) vectors, 2 rows x 8 lanes x 4 bytes each (`runs.rs`), a plane 64 bytes
//!   4 bits   plane j % (N/2)  the low (j < N/2) or high nibbles
//!   6 bits   the same, then   plane j / 4: bits 2 (j % 4) and above
//!   5 bits   the same, then   one plane: bit j; in a step of 128 one for all rows: bit j, of rows 2 and 3 bit 4 + j
//! ```
//! The last rows, where they are not four, stay as they are stored. A matrix keeps its size, and four rows their place.
//!
//! A vector of weights is at hand after one load, a mask and at times a shift, and the sums of lanes need no fold and no spreading
//! (`product.rs`). Lanes hold the same columns either way, so the bits are the same. On AVX-512 (`avx512/packed`) a vector has both rows.
//!
//! Q8_0 is not packed: its rows as stored are read as fast as memory gives them. On AVX-512 packed ones were read at 66 GB/s in cache (as stored
//! 37), but a Q8_0 file decoded at 0.90 of the speed, and Qwen2.5-Coder-0.5B Q4_K_M, a third Q8_0, at 1.05 (2-core AMD EPYC Zen 4, two threads, 2026-11).

mod heads;
mod one;
mod pack;
mod panel;

use std::arch::x86_64::*;

use super::product::Sides;
use super::spread::Spread;
use super::weights::Head;
use crate::activations::GROUP;

pub(super) use one::one;
pub(in crate::x86_64) use pack::pack;
pub(super) use panel::unpack_packed;

/// Rows that stand together.
pub(in crate::x86_64) const ROWS: usize = 4;

/// A format whose rows can be packed.
pub(in crate::x86_64) trait Packed: Spread {
    /// Bits of a value: 4, 5 or 6.
    const BITS: usize;
    /// Bytes of the heads of two rows of 256 columns.
    const HEADS: usize = 2 * Self::BYTES - 64 * Self::BITS;

    /// Writes what row `row` of two has of the `heads` of `N` runs.
    ///
    /// # Safety
    /// `group` has `N` runs, `heads` has room for those of a step.
    unsafe fn pack_head<const N: usize>(group: *const u8, row: usize, heads: *mut u8);

    /// The head of row `row` of two, as [`super::weights::Weights::head`] gives it.
    ///
    /// # Safety
    /// AVX2; readable.
    unsafe fn unpack_head<const N: usize>(heads: *const u8, row: usize) -> Head;

    /// Scales and offsets of the lanes of row `row` of two, which only formats of blocks of 32 have for `N` = 4.
    ///
    /// # Safety
    /// AVX2; readable.
    unsafe fn sides<const N: usize>(heads: *const u8, row: usize) -> Sides;
}

/// Bytes of a step of `N` runs of four rows.
pub(in crate::x86_64) const fn step_bytes<F: Packed, const N: usize>() -> usize {
    ROWS * F::BYTES * N / 8
}

/// Where the heads of rows 0 and 1 (`pair` 0) or 2 and 3 of a step of `N` runs stand.
#[inline(always)]
pub(in crate::x86_64) fn heads_of<F: Packed, const N: usize>(pair: usize) -> usize {
    pair * F::HEADS * N / 8
}

/// Where plane `i` of `pair` stands.
#[inline(always)]
pub(in crate::x86_64) fn plane_of<F: Packed, const N: usize>(pair: usize, i: usize) -> usize {
    let own = if F::BITS == 5 && N == 4 { 2 } else { F::BITS * N / 8 };
    // The shared plane comes last.
    let at = if i < own { pair * own + i } else { 2 * own };
    2 * heads_of::<F, N>(1) + 64 * at
}

/// Vector `j` of row `row` of the step at `step`.
///
/// # Safety
/// AVX2; readable.
#[inline(always)]
unsafe fn vector<F: Packed, const N: usize>(step: *const u8, row: usize, j: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let pair = row / 2;
        let plane =
            |i: usize| _mm256_loadu_si256(step.add(plane_of::<F, N>(pair, i) + 32 * (row % 2)).cast());
        let nibbles = plane(j % (N / 2));
        let low = _mm256_set1_epi8(15);
        let q = _mm256_and_si256(if j < N / 2 { nibbles } else { _mm256_srli_epi16::<4>(nibbles) }, low);
        match (F::BITS, N) {
            (4, _) => q,
            (5, 8) => upper(q, plane(4), j, 0x10),
            (5, _) => upper(q, plane(2), 4 * pair + j, 0x10),
            _ => upper(q, plane(4 + j / 4), 2 * (j % 4), 0x30),
        }
    }
}

/// `q`, and what `plane` has from bit `bit` on in the bits of `mask`, which begin at bit 4.
#[inline(always)]
unsafe fn upper(q: __m256i, plane: __m256i, bit: usize, mask: i8) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe {
        let shifted = super::weights::shifted(plane, 4 - bit as i32);
        _mm256_or_si256(q, _mm256_and_si256(shifted, _mm256_set1_epi8(mask)))
    }
}

/// The steps of rows of `cols` columns, and what follows them.
#[derive(Clone, Copy)]
pub(in crate::x86_64) struct Shape {
    /// Steps of 256 columns.
    pub(in crate::x86_64) whole: usize,
    /// Whether a step of 128 follows.
    pub(in crate::x86_64) half: bool,
    /// Runs that are in no step.
    pub(in crate::x86_64) rest: usize,
}

impl Shape {
    pub(in crate::x86_64) fn of<F: Packed>(cols: usize) -> Shape {
        let runs = cols % GROUP / 32;
        Shape { whole: cols / GROUP, half: runs & 4 != 0, rest: runs & 3 }
    }

    /// Runs of the last group that stand in a step.
    pub(in crate::x86_64) fn first(self) -> usize {
        if self.half { 4 } else { 0 }
    }

    /// Where the step of 128 columns stands.
    pub(in crate::x86_64) fn half_at<F: Packed>(self) -> usize {
        self.whole * step_bytes::<F, 8>()
    }

    /// Where the runs of no step stand, and how many bytes those of one row are.
    pub(in crate::x86_64) fn rest_at<F: Packed>(self) -> (usize, usize) {
        let half = if self.half { step_bytes::<F, 4>() } else { 0 };
        (self.half_at::<F>() + half, self.rest * F::FORMAT.block_bytes())
    }
}
