//! Panels: rows unpacked to bytes, spread over lanes, in tiles whose rows stand side by side.
//!
//! ```text
//! w      [tile][step][N][rows of a tile][8 lanes][4] bytes
//! sides  [tile][step][scale, offsets, integer scales][rows of a tile][8 lanes]
//! ```
//! A step is 256 columns, at the end of a row fewer (`runs.rs`).

use std::arch::x86_64::*;
use std::ops::Range;

use super::runs::{spread, steps};
use super::spread::{Spread, offsets, scales};
use super::weights::Head;
use crate::activations::GROUP;
use crate::product::Product;
use crate::scratch::{Panel, Scratch};

/// Lanes of a vector of one row.
pub(in crate::x86_64) const LANES: usize = 8;

/// What a tile is made of.
pub(in crate::x86_64) trait Form {
    /// Rows of a tile.
    const ROWS: usize;

    /// Offsets a lane has, 0 to 2, of those of the format.
    fn offsets<F: Spread>() -> usize;

    /// Run `b` as bytes.
    ///
    /// # Safety
    /// As for [`super::weights::Weights::load`].
    unsafe fn bytes<F: Spread>(w: *const u8, b: usize) -> __m256i;

    /// The integer scales of every lane's first and second 16 columns.
    ///
    /// # Safety
    /// AVX2.
    unsafe fn subs(head: &Head) -> [__m256i; 2];
}

/// Rows of a tile, `n` of them.
#[derive(Clone, Copy)]
pub(in crate::x86_64) struct Rows {
    pub(in crate::x86_64) w: *const u8,
    pub(in crate::x86_64) sides: *const f32,
    pub(in crate::x86_64) n: usize,
}

/// Vectors of scales, offsets and integer scales of a step.
#[inline(always)]
pub(in crate::x86_64) fn side_vectors<F: Spread, P: Form>() -> usize {
    1 + P::offsets::<F>() + if F::HALVES { 2 } else { 0 }
}

/// Unpacks `rows`, at most [`Panel::ROWS`], and gives their tiles.
///
/// # Safety
/// AVX2, FMA and F16C.
#[inline(always)]
pub(in crate::x86_64) unsafe fn unpack<F: Spread, P: Form>(
    p: &Product<'_>,
    rows: Range<usize>,
    scratch: &mut Scratch,
) -> impl Iterator<Item = Rows> + Clone + use<F, P> {
    let panel = Panel::of(p.cols);
    let (lines, sides) = (&mut scratch.lines[..panel.lines], &mut scratch.sides[..panel.sides]);
    let (lines, sides) = (lines.as_mut_ptr().cast::<u8>(), sides.as_mut_ptr());
    let (count, cols) = (rows.len(), p.cols);
    assert!(count <= Panel::ROWS);
    let steps = cols / GROUP + (cols % GROUP / 32).count_ones() as usize;
    let tile_sides = steps * P::ROWS * LANES * side_vectors::<F, P>();
    for (r, row) in rows.enumerate() {
        let (tile, lane) = (r / P::ROWS, r % P::ROWS * LANES);
        // SAFETY: the panel has room for so many rows of so many columns, and the row is whole.
        unsafe {
            let lines = lines.add(tile * P::ROWS * cols + 4 * lane);
            unpack_row::<F, P>(p.row(row).as_ptr(), cols, lines, sides.add(tile * tile_sides + lane));
        }
    }
    // SAFETY: inside the panel.
    (0..count.div_ceil(P::ROWS)).map(move |tile| unsafe {
        let w = lines.add(tile * P::ROWS * cols);
        Rows { w, sides: sides.add(tile * tile_sides), n: P::ROWS.min(count - tile * P::ROWS) }
    })
}

#[inline(always)]
unsafe fn unpack_row<F: Spread, P: Form>(
    mut w: *const u8,
    cols: usize,
    mut to: *mut u8,
    mut sides: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for _ in 0..cols / GROUP {
            unpack_step::<F, P, 8>(w, &mut to, &mut sides);
            w = w.add(F::BYTES);
        }
        for (_, runs) in steps(cols % GROUP / 32) {
            match runs {
                4 => unpack_step::<F, P, 4>(w, &mut to, &mut sides),
                2 => unpack_step::<F, P, 2>(w, &mut to, &mut sides),
                _ => unpack_step::<F, P, 1>(w, &mut to, &mut sides),
            }
            w = w.add(runs * F::FORMAT.block_bytes());
        }
    }
}

#[inline(always)]
unsafe fn unpack_step<F: Spread, P: Form, const N: usize>(
    w: *const u8,
    to: &mut *mut u8,
    sides: &mut *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let head = F::head(w, N);
        let mut side = |v: __m256| {
            _mm256_storeu_ps(*sides, v);
            *sides = sides.add(P::ROWS * LANES);
        };
        side(scales::<F, N>(&head));
        let offsets = offsets::<F>(&head);
        if P::offsets::<F>() > 0 {
            side(offsets[0]);
        }
        if P::offsets::<F>() > 1 {
            side(offsets[1]);
        }
        if F::HALVES {
            let [a, b] = P::subs(&head);
            side(_mm256_castsi256_ps(a));
            side(_mm256_castsi256_ps(b));
        }
        let mut q = [_mm256_setzero_si256(); 8];
        macro_rules! runs {
            ($($b:literal)*) => {{ $(if $b < N { q[$b] = P::bytes::<F>(w, $b); })* }};
        }
        runs!(0 1 2 3 4 5 6 7);
        spread::<N>(&mut q);
        for q in &q[..N] {
            _mm256_store_si256(to.cast(), *q);
            *to = to.add(4 * P::ROWS * LANES);
        }
    }
}
