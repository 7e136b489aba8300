//! Many coarse tokens: rows are unpacked to bytes into a panel, then multiplied in tiles; see `product.rs`.
//!
//! ```text
//! sum over steps of 256 columns:  x scale[t, lane] * ( scale[r, lane] * float(i32 sum of w x in the lane) + offset[r, lane] * sum of x in the lane )
//!
//! w: 8 lanes x 4 bytes   vpmaddubsw   x: 8 lanes x 4 bytes   added up in i16 as long as they fit, then vpmaddwd   1 or the integer scales
//! ```
//! Lanes are runs of 32 columns (`runs.rs`), so eight vectors go by before sums meet a scale. With weights of 4 bits all eight fit 16 bits: 16
//! instructions for 256 products where 16-bit activations need 32; with 5 bits four, with 6 bits two. Signed bytes fit once: their signs go to
//! the activations.
//!
//! One thread, weights in cache, 64 tokens (2-core AMD EPYC Zen 4, 2026-11), G operations per second, against 16-bit activations in the same
//! run: Q4_K 181 and 113, Q5_0 163 and 85, Q6_K 143 and 88, Q8_0 107 and 87. Qwen2.5-Coder-1.5B Q4_K_M, 512 tokens, two threads: 1.47 times as fast.
//! What it took: the order of [`now`] (left alone, the compiler went token by token, and Q4_K ran at 106), and a scale times a unit before the
//! sums are there, which takes two multiplications off the end of a step (138 to 181; of the AVX-512 tiles, which fill the pipes better, it
//! makes Q4_K slower, 0.88, and Q5_0 faster, 1.07).

use std::arch::asm;
use std::arch::x86_64::*;

use super::panel::{At, Form, LANES, Rows, Unpack};
use super::product::X;
use super::runs::{steps, sum};
use super::spread::{Spread, lane_sums, offsets, scales, units};
use super::weights::Head;
use crate::activations::{GROUP, Group, Half, LARGEST_COARSE};
use crate::pool::Tile;
use crate::product::Product;
use crate::scratch::{Panel, Scratch};

/// Rows and tokens of a tile: 6 sums, 6 totals, 2 weights, an activation and a product fill the 16 registers.
const ROWS: usize = 2;
const TOKENS: usize = 3;

/// Rows one after the other, bytes as they are, integer scales as pairs of words.
#[derive(Clone, Copy)]
pub(super) struct Single;

impl Form for Single {
    const ROWS: usize = ROWS;

    #[inline(always)]
    fn sides<F: Spread>() -> usize {
        1 + F::OFFSETS / 8 + if F::HALVES { 2 } else { 0 }
    }

    #[inline(always)]
    unsafe fn bytes<F: Spread>(w: *const u8, b: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { F::load(w, b) }
    }

    #[inline(always)]
    unsafe fn put_sides<F: Spread, const N: usize>(head: &Head, at: &mut At) {
        // SAFETY: the caller's promise; a head has sixteen integers.
        unsafe {
            let scale = if F::HALVES { _mm256_set1_ps(head.scale[0]) } else { scales::<F, N>(head)[0] };
            at.put_side::<Single>(scale);
            let offsets = offsets::<F>(head);
            if F::OFFSETS > 0 {
                at.put_side::<Single>(offsets[0]);
            }
            if F::OFFSETS > 8 {
                at.put_side::<Single>(offsets[1]);
            }
            if F::HALVES {
                let pairs = _mm256_loadu_si256(head.sub.as_ptr().cast());
                let (low, high) = (_mm256_slli_epi32::<16>(pairs), _mm256_srli_epi32::<16>(pairs));
                let first = _mm256_or_si256(low, _mm256_srli_epi32::<16>(low));
                let second = _mm256_or_si256(high, _mm256_slli_epi32::<16>(high));
                at.put_side::<Single>(_mm256_castsi256_ps(first));
                at.put_side::<Single>(_mm256_castsi256_ps(second));
            }
        }
    }
}

/// Vectors whose products are added up in 16 bits.
const fn together<F: Spread>() -> usize {
    let fit = i16::MAX as usize / (2 * LARGEST_COARSE as usize * F::MOST as usize);
    let most = if F::HALVES { 4 } else { 8 };
    if fit < most { fit } else { most }
}

/// Outputs of `tokens` tokens from `first` on, where `x` starts.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn many<F: Spread>(
    p: &Product<'_>,
    x: X<'_>,
    (first, tokens): (usize, usize),
    unpack: Unpack<Single>,
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
    assert!(x.halves[0].len() >= T * per_token && x.groups.len() >= T * per_token);
    let mut step = Step {
        w: rows.w,
        sides: rows.sides,
        x: x.halves[0].as_ptr().cast(),
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
    /// The first token's values.
    x: *const u8,
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
            let mut sums = [[_mm256_setzero_si256(); T]; ROWS];
            // Spelled out: the compiler does not unroll a body this long.
            macro_rules! vectors {
                ($($j:literal)*) => {{ $(if $j < N && $j % together::<F>() == 0 {
                    self.add_vectors::<F, T, N>($j, &mut sums);
                })* }};
            }
            vectors!(0 1 2 3 4 5 6 7);
            self.scale::<F, T, N>(&sums, totals);
            self.w = self.w.add(N * 4 * ROWS * LANES);
            self.x = self.x.add(32 * N);
            self.sides = self.sides.add(Single::sides::<F>() * ROWS * LANES);
        }
    }

    /// Adds the products of the vectors from `first` on that are added up in 16 bits.
    #[inline(always)]
    unsafe fn add_vectors<F: Spread, const T: usize, const N: usize>(
        &self,
        first: usize,
        sums: &mut [[__m256i; T]; ROWS],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut products = self.products::<F, T>(first);
            macro_rules! vectors {
                ($($j:literal)*) => {{ $(if $j < together::<F>() && first + $j < N {
                    let more = self.products::<F, T>(first + $j);
                    for r in 0..ROWS {
                        for t in 0..T {
                            products[r][t] = now(_mm256_add_epi16(products[r][t], more[r][t]));
                        }
                    }
                })* }};
            }
            vectors!(1 2 3 4 5 6 7);
            for r in 0..ROWS {
                let sub = if F::HALVES {
                    _mm256_loadu_si256(self.side(1 + F::OFFSETS / 8 + first / 4, r).cast())
                } else {
                    _mm256_set1_epi16(1)
                };
                for t in 0..T {
                    let products = _mm256_madd_epi16(products[r][t], sub);
                    sums[r][t] =
                        if first == 0 { products } else { now(_mm256_add_epi32(sums[r][t], products)) };
                }
            }
        }
    }

    /// Vector `i` of the scales and offsets of row `r`.
    #[inline(always)]
    unsafe fn side(&self, i: usize, r: usize) -> *const f32 {
        // SAFETY: the caller's promise.
        unsafe { self.sides.add((i * ROWS + r) * LANES) }
    }

    /// Sums of two products each of vector `j`.
    #[inline(always)]
    unsafe fn products<F: Spread, const T: usize>(&self, j: usize) -> [[__m256i; T]; ROWS] {
        // SAFETY: the caller has AVX2 and the operands, which are aligned.
        unsafe {
            let w = self.w.add(j * 4 * ROWS * LANES).cast::<__m256i>();
            let rows = [_mm256_load_si256(w), _mm256_load_si256(w.add(1))];
            let mut products = [[_mm256_setzero_si256(); T]; ROWS];
            for t in 0..T {
                let x = self.x.add(32 * j + t * size_of::<Half>() * self.per_token);
                let x = _mm256_load_si256(x.cast());
                for r in 0..ROWS {
                    products[r][t] = if F::SIGNED {
                        _mm256_maddubs_epi16(_mm256_abs_epi8(rows[r]), _mm256_sign_epi8(x, rows[r]))
                    } else {
                        _mm256_maddubs_epi16(rows[r], x)
                    };
                }
            }
            products
        }
    }

    /// Adds scaled sums to the totals.
    #[inline(always)]
    unsafe fn scale<F: Spread, const T: usize, const N: usize>(
        &self,
        sums: &[[__m256i; T]; ROWS],
        totals: &mut [[__m256; T]; ROWS],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            // What does not wait for the sums comes first.
            for t in 0..T {
                let x = &*self.groups.add(t * self.per_token);
                let unit = units::<N>(x, self.first);
                for o in 0..F::OFFSETS / 8 {
                    let sums = _mm256_mul_ps(lane_sums::<F, N>(x, o, self.first), unit);
                    for r in 0..ROWS {
                        totals[r][t] =
                            _mm256_fmadd_ps(_mm256_loadu_ps(self.side(1 + o, r)), sums, totals[r][t]);
                    }
                }
                for r in 0..ROWS {
                    let scale = _mm256_mul_ps(_mm256_loadu_ps(self.side(0, r)), unit);
                    totals[r][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[r][t]), scale, totals[r][t]);
                }
            }
        }
    }
}

/// `x`, computed before anything that is read or given to this function later: else the compiler goes token by token, for which it
/// keeps all weights of a step, most of them in memory.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn now(mut x: __m256i) -> __m256i {
    // SAFETY: no instruction is emitted.
    unsafe { asm!("/* {0} */", inout(ymm_reg) x, options(nostack, preserves_flags)) };
    x
}
