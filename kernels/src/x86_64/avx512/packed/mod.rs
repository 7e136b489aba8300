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
//! A vector of weights is at hand after one load, a mask and at times a shift, and the sums of lanes need no fold (`product.rs`): per 512 weights of
//! Q4_K some 90 instructions, of 512 bits, where rows as stored take 220, of 256. Lanes hold the same columns either way, so the bits are
//! the same.
//!
//! Q8_0 is not packed: its rows as stored are read as fast as memory gives them. Packed they were read at 66 GB/s in cache (as stored 37), but a
//! Q8_0 file decoded at 0.90 of the speed, and Qwen2.5-Coder-0.5B Q4_K_M, a third Q8_0, at 1.05 (2-core AMD EPYC Zen 4, two threads, 2026-11).

mod heads;
mod one;
mod pack;
mod panel;

use std::arch::x86_64::*;

use super::super::avx2::spread::Spread;
use crate::activations::GROUP;

pub(super) use one::one;
pub(super) use pack::pack;
pub(super) use panel::unpack_packed;

/// Rows that stand together.
pub(super) const ROWS: usize = 4;

/// Scales of a step of two rows, lane by lane.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    /// Two where a format has scales per 16 columns, else one.
    scale: [__m512; 2],
    /// Where a format has them.
    offset: __m512,
}

/// A format whose rows can be packed.
pub(super) trait Packed: Spread {
    /// Bits of a value: 4, 5 or 6.
    const BITS: usize;
    /// Bytes of the heads of two rows of 256 columns.
    const HEADS: usize = 2 * Self::BYTES - 64 * Self::BITS;

    /// Writes what row `row` of two has of the `heads` of `N` runs.
    ///
    /// # Safety
    /// `group` has `N` runs, `heads` has room for those of a step.
    unsafe fn pack_head<const N: usize>(group: *const u8, row: usize, heads: *mut u8);

    /// The heads of a step of `N` runs, which only formats of blocks of 32 have for `N` = 4.
    ///
    /// # Safety
    /// AVX-512; readable.
    unsafe fn heads<const N: usize>(heads: *const u8) -> Heads;
}

/// Bytes of a step of `N` runs of four rows.
const fn step_bytes<F: Packed, const N: usize>() -> usize {
    ROWS * F::BYTES * N / 8
}

/// Where the heads of rows 0 and 1 (`pair` 0) or 2 and 3 of a step of `N` runs stand.
#[inline(always)]
fn heads_of<F: Packed, const N: usize>(pair: usize) -> usize {
    pair * F::HEADS * N / 8
}

/// Where plane `i` of `pair` stands.
#[inline(always)]
fn plane_of<F: Packed, const N: usize>(pair: usize, i: usize) -> usize {
    let own = if F::BITS == 5 && N == 4 { 2 } else { F::BITS * N / 8 };
    // The shared plane comes last.
    let at = if i < own { pair * own + i } else { 2 * own };
    2 * heads_of::<F, N>(1) + 64 * at
}

/// Vector `j` of `pair` of the step at `step`.
///
/// # Safety
/// AVX-512; readable.
#[inline(always)]
unsafe fn vector<F: Packed, const N: usize>(step: *const u8, pair: usize, j: usize) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let plane = |i: usize| _mm512_loadu_si512(step.add(plane_of::<F, N>(pair, i)).cast());
        let nibbles = plane(j % (N / 2));
        let low = _mm512_set1_epi8(15);
        let q = _mm512_and_si512(if j < N / 2 { nibbles } else { _mm512_srli_epi16::<4>(nibbles) }, low);
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
unsafe fn upper(q: __m512i, plane: __m512i, bit: usize, mask: i8) -> __m512i {
    // SAFETY: the caller has AVX-512.
    unsafe {
        let shifted = match bit {
            0 => _mm512_slli_epi16::<4>(plane),
            1 => _mm512_slli_epi16::<3>(plane),
            2 => _mm512_slli_epi16::<2>(plane),
            3 => _mm512_slli_epi16::<1>(plane),
            4 => plane,
            5 => _mm512_srli_epi16::<1>(plane),
            6 => _mm512_srli_epi16::<2>(plane),
            _ => _mm512_srli_epi16::<3>(plane),
        };
        // q | shifted & mask
        _mm512_ternarylogic_epi64::<0b1111_1000>(q, shifted, _mm512_set1_epi8(mask))
    }
}

/// The steps of rows of `cols` columns, and what follows them.
#[derive(Clone, Copy)]
struct Shape {
    /// Steps of 256 columns.
    whole: usize,
    /// Whether a step of 128 follows.
    half: bool,
    /// Runs that are in no step.
    rest: usize,
}

impl Shape {
    fn of<F: Packed>(cols: usize) -> Shape {
        let runs = cols % GROUP / 32;
        Shape { whole: cols / GROUP, half: runs & 4 != 0, rest: runs & 3 }
    }

    /// Runs of the last group that stand in a step.
    fn first(self) -> usize {
        if self.half { 4 } else { 0 }
    }

    /// Where the step of 128 columns stands.
    fn half_at<F: Packed>(self) -> usize {
        self.whole * step_bytes::<F, 8>()
    }

    /// Where the runs of no step stand, and how many bytes those of one row are.
    fn rest_at<F: Packed>(self) -> (usize, usize) {
        let half = if self.half { step_bytes::<F, 4>() } else { 0 };
        (self.half_at::<F>() + half, self.rest * F::FORMAT.block_bytes())
    }
}
