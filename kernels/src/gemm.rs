//! Products of f32 matrices on all threads: what training is made of. See `generic/gemm.rs` for how.

use std::cell::RefCell;

#[cfg(target_arch = "aarch64")]
use crate::aarch64::neon;
use crate::generic::gemm::{self, PANEL_COLS, PANEL_ROWS};
use crate::isa::Isa;
use crate::pool::{Grid, Pool, Tile};
use crate::simd::Portable;
#[cfg(target_arch = "x86_64")]
use crate::x86_64::avx2;

/// Rows of C that one thread takes at a time: their part of A fits the second cache.
const BLOCK_ROWS: usize = 96;
/// Parts of C for the threads to share, where it is large enough.
const PARTS: usize = 8;
/// Panels of B that one thread packs at a time.
const PACK_PANELS: usize = 4;

/// A matrix in memory, as it is or transposed.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    /// From one stored line to the next.
    stride: usize,
    transposed: bool,
}

impl<'a> Matrix<'a> {
    /// `rows` rows of `cols` values, one after the other.
    ///
    /// # Panics
    /// Where `data` has another length.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Matrix<'a> {
        assert_eq!(data.len(), rows * cols, "a matrix has rows times columns values");
        Matrix { data, rows, cols, stride: cols, transposed: false }
    }

    /// Rows and columns exchanged; nothing moves.
    #[must_use]
    pub fn t(self) -> Matrix<'a> {
        Matrix { rows: self.cols, cols: self.rows, transposed: !self.transposed, ..self }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    #[inline(always)]
    pub(crate) fn row_is_contiguous(&self) -> bool {
        !self.transposed
    }

    #[inline(always)]
    fn line(&self, i: usize) -> &'a [f32] {
        let len = if self.transposed { self.rows } else { self.cols };
        &self.data[i * self.stride..][..len]
    }

    /// A row of a matrix as it is.
    #[inline(always)]
    pub(crate) fn row(&self, i: usize) -> &'a [f32] {
        debug_assert!(!self.transposed);
        self.line(i)
    }

    /// A column of a transposed matrix.
    #[inline(always)]
    pub(crate) fn col(&self, j: usize) -> &'a [f32] {
        debug_assert!(self.transposed);
        self.line(j)
    }

    /// A column of a transposed matrix: its value in every row.
    #[inline(always)]
    pub(crate) fn col_of_rows(&self, k: usize) -> &'a [f32] {
        self.col(k)
    }
}

/// What is packed on this thread: panels of A, and of B where one thread does it all.
#[derive(Default)]
struct Scratch {
    a: Vec<f32>,
    b: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// `c = a b`, or `c += a b`, on the threads of `pool`. `c` holds `a.rows()` rows of `b.cols()` values. Every value is summed
/// in one fixed order: the result is the same for any number of threads.
///
/// # Panics
/// Where shapes do not fit, and inside a region of a pool.
pub fn gemm(pool: &Pool, a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], accumulate: bool) {
    gemm_with(Isa::best(), pool, a, b, c, accumulate);
}

fn gemm_with(isa: Isa, pool: &Pool, a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], accumulate: bool) {
    check(a, b, c);
    let (m, n, k) = (a.rows, b.cols, a.cols);
    if m == 0 || n == 0 {
        return;
    }
    let mut packed = SCRATCH.with_borrow_mut(|scratch| std::mem::take(&mut scratch.b));
    let panels = n.div_ceil(PANEL_COLS);
    packed.resize(panels * PANEL_COLS * k, 0.0);
    let mut states = vec![(); pool.threads()];
    if k > 0 {
        let width = PANEL_COLS * k;
        pool.run(
            &mut states,
            Grid::new(&mut packed, panels, width, PACK_PANELS, width),
            |(), _, mut tile| {
                for panel in tile.rows() {
                    pack(isa, b, panel, tile.row(panel));
                }
            },
        );
    }
    let down = m.div_ceil(BLOCK_ROWS).next_multiple_of(pool_even(m));
    let tile_rows = m.div_ceil(down).next_multiple_of(PANEL_ROWS);
    let across = PARTS.div_ceil(m.div_ceil(tile_rows));
    let tile_cols = n.div_ceil(across).next_multiple_of(PANEL_COLS);
    let grid = Grid::new(c, m, n, tile_rows, tile_cols);
    pool.run(&mut states, grid, |(), _, mut tile| {
        SCRATCH.with_borrow_mut(|scratch| {
            multiply(isa, a, &packed, accumulate, &mut scratch.a, &mut tile);
        });
    });
    SCRATCH.with_borrow_mut(|scratch| scratch.b = packed);
}

/// Large matrices are cut into a multiple of four blocks of rows, so that two or four threads end together.
fn pool_even(m: usize) -> usize {
    if m >= 2 * BLOCK_ROWS { 4 } else { 1 }
}

/// [`gemm`] on the calling thread alone, for use inside a region of a pool.
///
/// # Panics
/// Where shapes do not fit.
pub fn gemm_here(a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], accumulate: bool) {
    check(a, b, c);
    let (m, n, k, isa) = (a.rows, b.cols, a.cols, Isa::best());
    if m == 0 || n == 0 {
        return;
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.b.resize(n.div_ceil(PANEL_COLS) * PANEL_COLS * k, 0.0);
        for (panel, out) in scratch.b.chunks_exact_mut((PANEL_COLS * k).max(1)).enumerate() {
            pack(isa, b, panel, out);
        }
        for (block, c) in c.chunks_mut(BLOCK_ROWS * n).enumerate() {
            let rows = c.len() / n;
            let a = a.rows_at(block * BLOCK_ROWS, rows);
            multiply(isa, a, &scratch.b, accumulate, &mut scratch.a, &mut Tile::whole(c, rows, n));
        }
    });
}

impl<'a> Matrix<'a> {
    /// Some of its rows.
    fn rows_at(self, first: usize, rows: usize) -> Matrix<'a> {
        let skip = if self.transposed { first } else { first * self.stride };
        Matrix { data: &self.data[skip..], rows, ..self }
    }
}

fn check(a: Matrix<'_>, b: Matrix<'_>, c: &[f32]) {
    assert_eq!(a.cols, b.rows, "columns of A are rows of B");
    assert_eq!(c.len(), a.rows * b.cols, "C has rows of A times columns of B values");
}

fn pack(isa: Isa, b: Matrix<'_>, panel: usize, out: &mut [f32]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 => avx2::pack_cols(b, panel, out),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::Dotprod | Isa::I8mm => neon::pack_cols(b, panel, out),
        _ => gemm::pack_cols(Portable, b, panel, out),
    }
}

fn multiply(
    isa: Isa,
    a: Matrix<'_>,
    b: &[f32],
    accumulate: bool,
    packed: &mut Vec<f32>,
    out: &mut Tile<'_, f32>,
) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 => avx2::gemm_tile(a, b, accumulate, packed, out),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::Dotprod | Isa::I8mm => neon::gemm_tile(a, b, accumulate, packed, out),
        _ => gemm::tile(Portable, a, b, accumulate, packed, out),
    }
}

/// Runs `f` compiled for the best instruction set of this machine, as far as the compiler inlines what `f` calls: plain loops
/// over slices become its vectors.
#[inline]
pub fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    match Isa::best() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 => avx2::vectorized(f),
        // NEON is what AArch64 is compiled for anyway.
        _ => f(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values in [-1, 1) with 24 bits.
    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 40) as f32) / (1u64 << 23) as f32 - 1.0
        };
        std::iter::repeat_with(next).take(n).collect()
    }

    /// In f64: every product, and the sum of their magnitudes, which bounds the rounding.
    fn reference(a: &[f32], b: &[f32], m: usize, n: usize, k: usize) -> Vec<(f64, f64)> {
        let mut c = vec![(0.0, 0.0); m * n];
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            for p in 0..k {
                let x = f64::from(a[i * k + p]) * f64::from(b[p * n + j]);
                c[i * n + j].0 += x;
                c[i * n + j].1 += x.abs();
            }
        }
        c
    }

    fn transpose(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
        (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect()
    }

    #[test]
    fn every_form_equals_f64_on_ragged_shapes_for_any_number_of_threads() {
        let pools: Vec<Pool> = (1..=3).map(|threads| Pool::new(threads).unwrap()).collect();
        let shapes = [
            (1, 1, 1),
            (5, 3, 2),
            (6, 16, 8),
            (7, 17, 9),
            (13, 31, 257),
            (97, 65, 300),
            (200, 129, 33),
            (3, 5, 0),
        ];
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            for (number, (m, n, k)) in shapes.into_iter().enumerate() {
                let (a, b) = (numbers(m * k, number as u64), numbers(k * n, 100 + number as u64));
                let start = numbers(m * n, 200);
                let exact = reference(&a, &b, m, n, k);
                let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
                let forms = [
                    (Matrix::new(&a, m, k), Matrix::new(&b, k, n)),
                    (Matrix::new(&a, m, k), Matrix::new(&bt, n, k).t()),
                    (Matrix::new(&at, k, m).t(), Matrix::new(&b, k, n)),
                    (Matrix::new(&at, k, m).t(), Matrix::new(&bt, n, k).t()),
                ];
                let mut first: Option<Vec<f32>> = None;
                for (a, b) in forms {
                    for accumulate in [false, true] {
                        for pool in &pools {
                            let mut c = start.clone();
                            gemm_with(isa, pool, a, b, &mut c, accumulate);
                            for ((&c, &(exact, size)), &start) in c.iter().zip(&exact).zip(&start) {
                                let before = if accumulate { f64::from(start) } else { 0.0 };
                                // Each of k steps, and adding to C once per piece, rounds to 2^-24 of at most the sum of magnitudes.
                                let bound = (k + 3) as f64 * 2f64.powi(-24) * (size + before.abs());
                                let error = (f64::from(c) - exact - before).abs();
                                assert!(error <= bound, "{isa} {m}x{n}x{k}: {error:e} > {bound:e}");
                            }
                            if !accumulate {
                                assert_eq!(*first.get_or_insert_with(|| c.clone()), c, "{isa} {m}x{n}x{k}");
                            }
                        }
                    }
                    if isa == Isa::best() {
                        let mut c = start.clone();
                        gemm_here(a, b, &mut c, false);
                        assert_eq!(first.as_ref(), Some(&c), "alone, {m}x{n}x{k}");
                    }
                }
            }
        }
    }
}
