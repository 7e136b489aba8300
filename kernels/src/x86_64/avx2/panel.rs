//! Panels: rows unpacked to bytes, spread over lanes, in tiles whose rows stand side by side.
//!
//! ```text
//! w      [tile][step][N][rows of a tile][8 lanes][4] bytes
//! sides  [tile][step][scales, offsets][rows of a tile][8 lanes], as the form has them
//! ```
//! A step is 256 columns, at the end of a row fewer (`runs.rs`).

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use super::runs::{spread, steps};
use super::spread::{Spread, bytes, offsets, scales};
use super::weights::Head;
use crate::activations::GROUP;
use crate::product::Product;
use crate::scratch::{Panel, Scratch};

/// Lanes of a vector of one row.
pub(in crate::x86_64) const LANES: usize = 8;

/// What a tile is made of.
pub(in crate::x86_64) trait Form: Copy {
    /// Rows of a tile.
    const ROWS: usize;

    /// Vectors of scales and offsets of a step.
    fn sides<F: Spread>() -> usize;

    /// Run `b` as bytes.
    ///
    /// # Safety
    /// As for [`super::weights::Weights::load`].
    unsafe fn bytes<F: Spread>(w: *const u8, b: usize) -> __m256i;

    /// Writes them, of a step of `N` runs of a row.
    ///
    /// # Safety
    /// AVX2, and `at` has room for them.
    unsafe fn put_sides<F: Spread, const N: usize>(head: &Head, at: &mut At);
}

/// Unsigned bytes in tiles of `R` rows, scales and offsets as floats.
#[derive(Clone, Copy)]
pub(in crate::x86_64) struct Unsigned<const R: usize>;

impl<const R: usize> Form for Unsigned<R> {
    const ROWS: usize = R;

    #[inline(always)]
    fn sides<F: Spread>() -> usize {
        F::SCALES + F::LANE_OFFSETS
    }

    #[inline(always)]
    unsafe fn bytes<F: Spread>(w: *const u8, b: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { bytes::<F>(w, b) }
    }

    #[inline(always)]
    unsafe fn put_sides<F: Spread, const N: usize>(head: &Head, at: &mut At) {
        // SAFETY: the caller's promise.
        unsafe {
            let (scales, offsets) = (scales::<F, N>(head), offsets::<F>(head));
            for scale in &scales[..F::SCALES] {
                at.put_side::<Self>(*scale);
            }
            for offset in &offsets[..F::LANE_OFFSETS] {
                at.put_side::<Self>(*offset);
            }
        }
    }
}

/// Unpacks rows, at most [`Panel::ROWS`]. The caller has the instructions.
pub(in crate::x86_64) type Unpack<P> = unsafe fn(&Product<'_>, Range<usize>, &mut Scratch) -> Room<P>;

/// Rows of a tile, `n` of them.
#[derive(Clone, Copy)]
pub(in crate::x86_64) struct Rows {
    pub(in crate::x86_64) w: *const u8,
    pub(in crate::x86_64) sides: *const f32,
    pub(in crate::x86_64) n: usize,
}

/// Where the tiles of some rows stand.
#[derive(Clone, Copy)]
pub(in crate::x86_64) struct Room<P> {
    lines: *mut u8,
    sides: *mut f32,
    cols: usize,
    /// Rows.
    count: usize,
    /// Scales and offsets of a tile.
    tile_sides: usize,
    form: PhantomData<P>,
}

impl<P: Form> Room<P> {
    /// Room for `count` rows of `cols` values.
    ///
    /// # Panics
    /// Where `count` is more than [`Panel::ROWS`], or the panel of `scratch` is smaller.
    #[inline(always)]
    pub(in crate::x86_64) fn new<F: Spread>(cols: usize, count: usize, scratch: &mut Scratch) -> Room<P> {
        let panel = Panel::of(cols);
        let (lines, sides) = (&mut scratch.lines[..panel.lines], &mut scratch.sides[..panel.sides]);
        assert!(count <= Panel::ROWS);
        let steps = cols / GROUP + (cols % GROUP / 32).count_ones() as usize;
        Room {
            lines: lines.as_mut_ptr().cast(),
            sides: sides.as_mut_ptr(),
            cols,
            count,
            tile_sides: steps * P::ROWS * LANES * P::sides::<F>(),
            form: PhantomData,
        }
    }

    /// Where bytes and scales of row `r` begin.
    #[inline(always)]
    pub(in crate::x86_64) fn row(&self, r: usize) -> At {
        let (tile, lane) = (r / P::ROWS, r % P::ROWS * LANES);
        At {
            lines: self.lines.wrapping_add(tile * P::ROWS * self.cols + 4 * lane),
            sides: self.sides.wrapping_add(tile * self.tile_sides + lane),
        }
    }

    /// The tiles.
    #[inline(always)]
    pub(in crate::x86_64) fn tiles(self) -> impl Iterator<Item = Rows> + Clone + use<P> {
        (0..self.count.div_ceil(P::ROWS)).map(move |tile| {
            let At { lines, sides } = self.row(tile * P::ROWS);
            Rows { w: lines, sides, n: P::ROWS.min(self.count - tile * P::ROWS) }
        })
    }
}

/// A place in a panel, of which [`Room`] has seen that it is there.
#[derive(Clone, Copy)]
pub(in crate::x86_64) struct At {
    pub(in crate::x86_64) lines: *mut u8,
    pub(in crate::x86_64) sides: *mut f32,
}

impl At {
    /// Where the next vector of this row stands.
    #[inline(always)]
    pub(in crate::x86_64) fn next_line<P: Form>(&mut self) -> *mut u8 {
        let at = self.lines;
        self.lines = at.wrapping_add(4 * P::ROWS * LANES);
        at
    }

    /// Where the next vector of scales of this row stands.
    #[inline(always)]
    pub(in crate::x86_64) fn next_side<P: Form>(&mut self) -> *mut f32 {
        let at = self.sides;
        self.sides = at.wrapping_add(P::ROWS * LANES);
        at
    }

    /// Writes the next vector of scales of this row.
    ///
    /// # Safety
    /// AVX2, and there is room for it.
    #[inline(always)]
    pub(in crate::x86_64) unsafe fn put_side<P: Form>(&mut self, v: __m256) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_ps(self.next_side::<P>(), v) }
    }
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
) -> Room<P> {
    let room = Room::new::<F>(p.cols, rows.len(), scratch);
    for (r, row) in rows.enumerate() {
        // SAFETY: the panel has room for so many rows of so many columns, and the row is whole.
        unsafe { unpack_row::<F, P>(p.row(row).as_ptr(), p.cols, room.row(r)) };
    }
    room
}

/// Unpacks a row.
///
/// # Safety
/// As for [`unpack`]; `w` is a row of so many columns, and `at` has room for it.
#[inline(always)]
pub(in crate::x86_64) unsafe fn unpack_row<F: Spread, P: Form>(mut w: *const u8, cols: usize, mut at: At) {
    // SAFETY: the caller's promise.
    unsafe {
        for _ in 0..cols / GROUP {
            unpack_step::<F, P, 8>(w, &mut at);
            w = w.add(F::BYTES);
        }
        unpack_end::<F, P>(w, cols % GROUP / 32, at);
    }
}

/// Unpacks `runs`, which are no whole step, at the end of a row.
///
/// # Safety
/// As for [`unpack`]; `w` has them, and `at` room for them.
#[inline(always)]
pub(in crate::x86_64) unsafe fn unpack_end<F: Spread, P: Form>(mut w: *const u8, runs: usize, mut at: At) {
    // SAFETY: the caller's promise.
    unsafe {
        for (_, runs) in steps(runs) {
            match runs {
                4 => unpack_step::<F, P, 4>(w, &mut at),
                2 => unpack_step::<F, P, 2>(w, &mut at),
                _ => unpack_step::<F, P, 1>(w, &mut at),
            }
            w = w.add(runs * F::FORMAT.block_bytes());
        }
    }
}

#[inline(always)]
unsafe fn unpack_step<F: Spread, P: Form, const N: usize>(w: *const u8, at: &mut At) {
    // SAFETY: the caller's promise.
    unsafe {
        P::put_sides::<F, N>(&F::head(w, N), at);
        let mut q = [_mm256_setzero_si256(); 8];
        macro_rules! runs {
            ($($b:literal)*) => {{ $(if $b < N { q[$b] = P::bytes::<F>(w, $b); })* }};
        }
        runs!(0 1 2 3 4 5 6 7);
        spread::<N>(&mut q);
        for q in &q[..N] {
            _mm256_store_si256(at.next_line::<P>().cast(), *q);
        }
    }
}
