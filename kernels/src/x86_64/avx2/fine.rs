//! Many tokens in 16 bits: rows are unpacked to bytes into a panel, then multiplied in tiles; see `product.rs`.
//!
//! Per vector of 32 weights, for two rows and four tokens: 4 instructions make words of the bytes, and then a product takes two vpmaddwd and two adds.

use std::arch::x86_64::*;

use super::panel::{Form, LANES, Rows, Unpack, Unsigned};
use super::product::{Sides, X, scaled};
use super::runs::{steps, sum};
use super::spread::Spread;
use super::weights::opaque_count;
use crate::activations::{GROUP, Group, Half};
use crate::pool::Tile;
use crate::product::Product;
use crate::scratch::{Panel, Scratch};

/// Rows and tokens of a tile: 8 sums, 4 vectors of weights and the temporaries fill the 16 registers.
pub(super) const ROWS: usize = 2;
const TOKENS: usize = 4;

/// Outputs of `tokens` tokens from `first` on, where `x` starts.
///
/// # Safety
/// AVX2, FMA and F16C; rows and groups were checked.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn many<F: Spread>(
    p: &Product<'_>,
    x: X<'_>,
    (first, tokens): (usize, usize),
    unpack: Unpack<Unsigned<ROWS>>,
    scratch: &mut Scratch,
    out: &mut Tile<'_, f32>,
) {
    let per_token = p.cols.div_ceil(GROUP);
    let rows = out.cols();
    for top in rows.clone().step_by(Panel::ROWS) {
        // SAFETY: the caller has AVX2.
        let panel = unsafe { unpack(p, top..rows.end.min(top + Panel::ROWS), scratch) };
        for t in (0..tokens).step_by(TOKENS) {
            let x = x.from(t * per_token);
            for (tile, rows) in panel.tiles().enumerate() {
                let at = (first + t, top + tile * ROWS);
                // SAFETY: the panel has these rows and `x` these tokens.
                unsafe {
                    match tokens - t {
                        1 => self::tile::<F, 1>(p, rows, x, at, out),
                        2 => self::tile::<F, 2>(p, rows, x, at, out),
                        3 => self::tile::<F, 3>(p, rows, x, at, out),
                        _ => self::tile::<F, TOKENS>(p, rows, x, at, out),
                    }
                }
            }
        }
    }
}

/// Outputs of `T` tokens and some rows, from `at` = (token, row), where `rows` and `x` start.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<F: Spread, const T: usize>(
    p: &Product<'_>,
    rows: Rows,
    x: X<'_>,
    at: (usize, usize),
    out: &mut Tile<'_, f32>,
) {
    let per_token = p.cols.div_ceil(GROUP);
    assert!(x.halves.iter().all(|half| half.len() >= T * per_token) && x.groups.len() >= T * per_token);
    let mut step = Step {
        w: rows.w,
        sides: rows.sides,
        x: x.halves.map(|half| half.as_ptr().cast()),
        groups: x.groups.as_ptr(),
        per_token,
        first: 0,
    };
    let mut totals = [[_mm256_setzero_ps(); T]; ROWS];
    // SAFETY: the panel has these steps of these rows, `x` these groups of these tokens.
    unsafe {
        for _ in 0..p.cols / GROUP {
            step.add::<F, T, 8>(&mut totals);
            step.groups = step.groups.add(1);
        }
        for (first, runs) in steps(p.cols % GROUP / 32) {
            step.first = first;
            match runs {
                4 => step.add::<F, T, 4>(&mut totals),
                2 => step.add::<F, T, 2>(&mut totals),
                _ => step.add::<F, T, 1>(&mut totals),
            }
        }
    }
    for r in 0..rows.n {
        for t in 0..T {
            // SAFETY: AVX2 is there.
            p.put(out, at.0 + t, at.1 + r, unsafe { sum(totals[r][t]) });
        }
    }
}

/// Where a step begins.
struct Step {
    w: *const u8,
    sides: *const f32,
    /// The first token's even and odd values.
    x: [*const u8; 2],
    groups: *const Group,
    per_token: usize,
    /// The step's first run of its group.
    first: usize,
}

impl Step {
    /// Adds a step of `N` runs and goes on to the next.
    #[inline(always)]
    unsafe fn add<F: Spread, const T: usize, const N: usize>(&mut self, totals: &mut [[__m256; T]; ROWS]) {
        // SAFETY: the caller's promise.
        unsafe {
            let zero = _mm256_setzero_si256();
            let mut dots = [[[zero; 2]; T]; ROWS];
            if F::HALVES {
                self.dots::<T>(0, 4, 0, &mut dots);
                self.dots::<T>(4, 4, 1, &mut dots);
            } else {
                self.dots::<T>(0, N, 0, &mut dots);
            }
            for t in 0..T {
                let x = &*self.groups.add(t * self.per_token);
                let zeros = if N < 8 && F::BYTE_ZERO != 0 { self.zeros::<F, N>(t) } else { zero };
                for r in 0..ROWS {
                    let side = |i: usize| _mm256_loadu_ps(self.sides.add((i * ROWS + r) * LANES));
                    let mut sides =
                        Sides { scale: [_mm256_setzero_ps(); 2], offset: [_mm256_setzero_ps(); 2] };
                    for i in 0..F::SCALES {
                        sides.scale[i] = side(i);
                    }
                    for i in 0..F::LANE_OFFSETS {
                        sides.offset[i] = side(F::SCALES + i);
                    }
                    let zeros = (F::BYTE_ZERO, zeros);
                    totals[r][t] = scaled::<F, N>(dots[r][t], sides, (x, self.first), zeros, totals[r][t]);
                }
            }
            self.w = self.w.add(N * 4 * ROWS * LANES);
            self.x = self.x.map(|x| x.add(32 * N));
            self.sides = self.sides.add(Unsigned::<ROWS>::sides::<F>() * ROWS * LANES);
        }
    }

    /// Sums of the products of `n` vectors from `from` on.
    #[inline(always)]
    unsafe fn dots<const T: usize>(
        &self,
        from: usize,
        n: usize,
        half: usize,
        dots: &mut [[[__m256i; 2]; T]; ROWS],
    ) {
        // SAFETY: the caller has AVX2 and the operands, which are aligned.
        unsafe {
            let mut sums = [[_mm256_setzero_si256(); T]; ROWS];
            let mut j = from;
            while j < from + n {
                let w = self.w.add(j * 4 * ROWS * LANES).cast::<__m256i>();
                let mut even = [_mm256_setzero_si256(); ROWS];
                let mut odd = even;
                for r in 0..ROWS {
                    let bytes = _mm256_load_si256(w.add(r));
                    even[r] = _mm256_and_si256(bytes, _mm256_set1_epi16(255));
                    odd[r] = _mm256_srli_epi16::<8>(bytes);
                }
                for t in 0..T {
                    let at = 32 * j + t * size_of::<Half>() * self.per_token;
                    let [x_even, x_odd] = self.x.map(|x| _mm256_load_si256(x.add(at).cast()));
                    for r in 0..ROWS {
                        sums[r][t] = _mm256_add_epi32(sums[r][t], _mm256_madd_epi16(even[r], x_even));
                        sums[r][t] = _mm256_add_epi32(sums[r][t], _mm256_madd_epi16(odd[r], x_odd));
                    }
                }
                // Left alone, the compiler unrolls all vectors, reassociates the sums and then spills a hundred registers.
                j = opaque_count(j + 1);
            }
            for r in 0..ROWS {
                for t in 0..T {
                    dots[r][t][half] = sums[r][t];
                }
            }
        }
    }

    /// What the bytes' zero adds to the sums of token `t`: lanes hold parts of runs, of which there are no sums.
    #[inline(always)]
    unsafe fn zeros<F: Spread, const N: usize>(&self, t: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let zero = _mm256_set1_epi16(F::BYTE_ZERO as i16);
            let mut sums = _mm256_setzero_si256();
            for j in 0..N {
                let at = 32 * j + t * size_of::<Half>() * self.per_token;
                for x in self.x {
                    let x = _mm256_load_si256(x.add(at).cast());
                    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(zero, x));
                }
            }
            sums
        }
    }
}
