//! Matrix products of quantized weights: one loop for all formats.
//!
//! ```text
//! out[t, r] = sum over 8 lanes:  sum over steps of 256 columns:  sx[t, lane] * ( scale[r, lane] * float(i32 sum of w x in the lane)
//!                                                                              + offset[r, lane] * sum of x in the lane )
//!
//! one token    w: 8 lanes x 4 bytes   vpmaddubsw   upper bytes of x   in i16 as long as they fit, then vpmaddwd 256
//!                                     vpmaddubsw   lower bytes of x   the same, vpmaddwd 1
//! many tokens  w: 8 lanes x 4 bytes, even and odd ones as i16   vpmaddwd   even and odd x
//! ```
//! A lane is a run of 32 columns (`runs.rs`), as on AVX-512, so that eight vectors go by before sums meet a scale: with the columns of a run side by
//! side each run needs two vpmaddwd, a convert and an FMA, or integer scales.
//!
//! The sums of a lane are exact, so that how one token and many get there makes no difference; floats are added in the same order, scale then
//! offset, step by step: the same bits whatever the tile, the batch and the threads, packed or not, and the same as on AVX-512.
//!
//! One token (`one.rs`) is bound by unpacking and spreading; packed rows (`packed/`) are spread already. One row at a time, in the order of the file,
//! is what the hardware prefetcher follows: single thread from DRAM, Q8_0 17.6 GB/s; two neighbouring rows at once 8.8 with and 5.2 without
//! software prefetch; two rows half a matrix apart 21.6, but only in parts of 256 KiB and more, which small matrices do not have.
//!
//! Many tokens: `fine.rs`, coarse ones `coarse.rs`.
//!
//! One thread, 4864 x 1024 weights in cache (2-core AMD EPYC Zen 4 without AVX-512, 2026-11), GB/s of weights, as stored and packed: Q4_0 11.3 and 18.3,
//! Q5_0 9.2 and 17.2, Q4_K 10.1 and 14.8, Q6_K 10.7 and 17.1; Q8_0 as stored 19.9. G operations per second, 64 tokens in 16 bits and coarse: Q4_0 91 and
//! 129, Q5_0 87 and 110, Q4_K 73 and 119, Q6_K 66 and 108, Q8_0 83 and 77.

use std::arch::x86_64::*;
use std::ops::Range;

use super::coarse::{self, Single};
use super::fine;
use super::one::one;
use super::packed::{self, Packed};
use super::panel::{Form, Room, Unpack, Unsigned, unpack};
use super::spread::{Spread, lane_sums};
use crate::activations::{Activations, Group, Half};
use crate::isa::Avx2;
use crate::pool::Tile;
use crate::product::Product;
use crate::scratch::Scratch;

/// Activations, `[token][group]`.
#[derive(Clone, Copy)]
pub(super) struct X<'a> {
    pub(super) halves: [&'a [Half]; 2],
    pub(super) groups: &'a [Group],
}

impl X<'_> {
    /// From group `first` on.
    pub(super) fn from(self, first: usize) -> Self {
        X { halves: self.halves.map(|half| &half[first..]), groups: &self.groups[first..] }
    }
}

/// How the rows of a product are read.
struct Read {
    /// By one token, which is number so much.
    one: unsafe fn(&Product<'_>, X<'_>, usize, &mut Tile<'_, f32>),
    fine: Unpack<Unsigned<{ fine::ROWS }>>,
    coarse: Unpack<Single>,
}

/// The outputs of one tile: columns of the tile are rows of the weight.
pub(super) fn product<F: Spread>(_: Avx2, p: &Product<'_>, scratch: &mut Scratch, out: &mut Tile<'_, f32>) {
    let read = Read { one: one::<F>, fine: unpack_rows::<F, _>, coarse: unpack_rows::<F, _> };
    tokens::<F>(read, p, scratch, out);
}

/// The same, of a format whose rows may be packed.
pub(super) fn product_of_packed<F: Packed>(
    token: Avx2,
    p: &Product<'_>,
    scratch: &mut Scratch,
    out: &mut Tile<'_, f32>,
) {
    if !p.packed {
        return product::<F>(token, p, scratch, out);
    }
    let Range { start, end } = out.cols();
    assert!(
        start % packed::ROWS == 0 && (end % packed::ROWS == 0 || end == p.rows),
        "no part cuts four rows"
    );
    let (fine, coarse) =
        (packed::unpack_packed::<F, _> as Unpack<_>, packed::unpack_packed::<F, _> as Unpack<_>);
    tokens::<F>(Read { one: packed::one::<F>, fine, coarse }, p, scratch, out);
}

fn tokens<F: Spread>(read: Read, p: &Product<'_>, scratch: &mut Scratch, out: &mut Tile<'_, f32>) {
    let per_token = p.checked_groups(F::FORMAT, out);
    let Activations { halves, groups, coarse, .. } = p.quantized;
    let mut first = 0;
    for alike in coarse[..p.tokens].chunk_by(|a, b| a == b) {
        let (tokens, these) = ((first, alike.len()), first * per_token..(first + alike.len()) * per_token);
        let halves = halves.each_ref().map(|half| &half[these.clone()]);
        let x = X { halves, groups: &groups[these] };
        // SAFETY: the caller's token proves the instructions; the lengths were checked.
        unsafe {
            match alike {
                [true, ..] => coarse::many::<F>(p, x, tokens, read.coarse, scratch, out),
                [_] => (read.one)(p, x, first, out),
                _ => fine::many::<F>(p, x, tokens, read.fine, scratch, out),
            }
        }
        first += alike.len();
    }
}

/// A panel of rows as stored.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn unpack_rows<F: Spread, P: Form>(
    p: &Product<'_>,
    rows: Range<usize>,
    scratch: &mut Scratch,
) -> Room<P> {
    // SAFETY: the caller's promise.
    unsafe { unpack::<F, P>(p, rows, scratch) }
}

/// Scales and offsets of the lanes of a step of one row.
#[derive(Clone, Copy)]
pub(in crate::x86_64) struct Sides {
    /// Two where a format has scales per 16 columns, else one.
    pub(super) scale: [__m256; 2],
    /// Where lanes have them.
    pub(super) offset: [__m256; 2],
}

/// Adds the exact sums of a step of `N` runs, of which `first` is the first of the group `x`: of columns 0 to 15 and 16 to 31 where there are scales of
/// both, else all in the first. `zeros` is what the bytes' zero `zero` adds to the sums where `N` is not 8.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(super) unsafe fn scaled<F: Spread, const N: usize>(
    dots: [__m256i; 2],
    sides: Sides,
    (x, first): (&Group, usize),
    (zero, zeros): (i32, __m256i),
    mut total: __m256,
) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let unit = _mm256_set1_ps(x.scales[0]);
        for h in 0..F::SCALES {
            let dot = if zero == 0 {
                dots[h]
            } else if N == 8 {
                let sums = if F::HALVES { x.sums16.as_ptr().add(8 * h) } else { x.sums32.as_ptr() };
                // Whole numbers below 2^24.
                let sums = _mm256_cvtps_epi32(_mm256_loadu_ps(sums));
                _mm256_sub_epi32(dots[h], _mm256_mullo_epi32(sums, _mm256_set1_epi32(zero)))
            } else {
                _mm256_sub_epi32(dots[h], zeros)
            };
            let mut value = _mm256_mul_ps(_mm256_cvtepi32_ps(dot), sides.scale[h]);
            if F::LANE_OFFSETS > 0 {
                value = _mm256_fmadd_ps(sides.offset[h], lane_sums::<F, N>(x, h, first), value);
            }
            total = _mm256_fmadd_ps(value, unit, total);
        }
        total
    }
}
