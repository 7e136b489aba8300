//! Packed rows (`avx2/packed`) with 512 bits: a vector has two rows. Per 512 weights of Q4_K some 90 instructions, where rows as stored take 220 of 256
//! bits.

mod heads;
mod one;
mod panel;

use std::arch::x86_64::*;

pub(super) use super::super::avx2::packed::ROWS;
use super::super::avx2::packed::{self, Shape, heads_of, plane_of, step_bytes};

pub(super) use one::one;
pub(super) use panel::unpack_packed;

/// Scales of a step of two rows, lane by lane.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    /// Two where a format has scales per 16 columns, else one.
    scale: [__m512; 2],
    /// Where a format has them.
    offset: __m512,
}

/// A format whose rows can be packed.
pub(super) trait Packed: packed::Packed {
    /// The heads of a step of `N` runs, which only formats of blocks of 32 have for `N` = 4.
    ///
    /// # Safety
    /// AVX-512; readable.
    unsafe fn heads<const N: usize>(heads: *const u8) -> Heads;
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
