//! Many tokens: rows are unpacked to bytes into a panel, then multiplied in tiles; see `product.rs`.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::avx2::panel::{Form, LANES, Room, Rows, side_vectors};
use super::super::avx2::runs::steps;
use super::super::avx2::spread::{Spread, bytes, lane_sums, subs, units};
use super::super::avx2::weights::Head;
use super::product::X;
use crate::activations::{GROUP, GROUP_LINES, Group, Lines};
use crate::pool::Tile;
use crate::product::Product;
use crate::scratch::{Panel, Scratch};

/// Unpacks rows, at most [`Panel::ROWS`]. The caller has the instructions.
pub(super) type Unpack = unsafe fn(&Product<'_>, Range<usize>, &mut Scratch) -> Room<Unsigned>;

/// Registers of weights in a tile, of two rows each, and tokens: 12 sums, 12 totals, 4 weights, 1 activation.
const PAIRS: usize = 4;
const TOKENS: usize = 3;
const ROWS: usize = 2 * PAIRS;

/// Unsigned bytes.
#[derive(Clone, Copy)]
pub(super) struct Unsigned;

impl Form for Unsigned {
    const ROWS: usize = ROWS;

    #[inline(always)]
    fn offsets<F: Spread>() -> usize {
        F::LANE_OFFSETS
    }

    #[inline(always)]
    unsafe fn bytes<F: Spread>(w: *const u8, b: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { bytes::<F>(w, b) }
    }

    #[inline(always)]
    unsafe fn subs(head: &Head) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe { subs(head) }
    }
}

/// `unpack` makes a panel of some of the product's rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn many<F: Spread>(
    p: &Product<'_>,
    x: X<'_>,
    unpack: Unpack,
    scratch: &mut Scratch,
    out: &mut Tile<'_, f32>,
) {
    let per_token = p.cols.div_ceil(GROUP);
    let rows = out.cols();
    for first in rows.clone().step_by(Panel::ROWS) {
        // SAFETY: the caller has the instructions.
        let panel = unsafe { unpack(p, first..rows.end.min(first + Panel::ROWS), scratch) };
        let mut token = 0;
        while token < p.tokens {
            let coarse = x.coarse[token];
            let n = x.coarse[token..].iter().take(TOKENS).take_while(|next| **next == coarse).count();
            let x = X {
                lines: &x.lines[token * per_token..],
                groups: &x.groups[token * per_token..],
                coarse: &x.coarse[token..],
            };
            for (tile, rows) in panel.tiles().enumerate() {
                let at = (token, first + tile * ROWS);
                // SAFETY: the panel has these rows and `x` these tokens.
                unsafe {
                    if coarse {
                        tiles::<F, false>(p, rows, x, n, at, out);
                    } else {
                        tiles::<F, true>(p, rows, x, n, at, out);
                    }
                }
            }
            token += n;
        }
    }
}

/// `n` tokens, at most [`TOKENS`], all coarse or all `FINE`.
#[inline(always)]
unsafe fn tiles<F: Spread, const FINE: bool>(
    p: &Product<'_>,
    rows: Rows,
    x: X<'_>,
    n: usize,
    at: (usize, usize),
    out: &mut Tile<'_, f32>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match n {
            1 => tile::<F, FINE, 1>(p, rows, x, at, out),
            2 => tile::<F, FINE, 2>(p, rows, x, at, out),
            _ => tile::<F, FINE, TOKENS>(p, rows, x, at, out),
        }
    }
}

/// Outputs of `T` tokens and some rows, from `at` = (token, row), where `rows` and `x` start.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn tile<F: Spread, const FINE: bool, const T: usize>(
    p: &Product<'_>,
    rows: Rows,
    x: X<'_>,
    at: (usize, usize),
    out: &mut Tile<'_, f32>,
) {
    let per_token = p.cols.div_ceil(GROUP);
    assert!(x.lines.len() >= T * per_token && x.groups.len() >= T * per_token);
    let mut step = Step {
        w: rows.w,
        sides: rows.sides,
        x: x.lines.as_ptr().cast(),
        groups: x.groups.as_ptr(),
        per_token,
        first: 0,
    };
    let mut totals = [[_mm512_setzero_ps(); T]; PAIRS];
    // SAFETY: the panel has these steps of these rows, `x` these groups of these tokens.
    unsafe {
        for _ in 0..p.cols / GROUP {
            step.add::<F, FINE, T, 8>(&mut totals);
            step.groups = step.groups.add(1);
        }
        for (first, runs) in steps(p.cols % GROUP / 32) {
            step.first = first;
            match runs {
                4 => step.add::<F, FINE, T, 4>(&mut totals),
                2 => step.add::<F, FINE, T, 2>(&mut totals),
                _ => step.add::<F, FINE, T, 1>(&mut totals),
            }
        }
    }
    for t in 0..T {
        let dots = sums([totals[0][t], totals[1][t], totals[2][t], totals[3][t]]);
        // Of a length the compiler knows, else it calls memcpy, which took 1% at 896 columns.
        if rows.n == ROWS {
            p.put_run(out, at.0 + t, at.1, &dots);
        } else {
            p.put_run(out, at.0 + t, at.1, &dots[..rows.n]);
        }
    }
}

/// Where a step begins.
struct Step {
    w: *const u8,
    sides: *const f32,
    /// The upper bytes of the first token.
    x: *const u8,
    groups: *const Group,
    per_token: usize,
    /// The step's first run of its group.
    first: usize,
}

impl Step {
    /// Adds a step of `N` runs and goes on to the next.
    #[inline(always)]
    unsafe fn add<F: Spread, const FINE: bool, const T: usize, const N: usize>(
        &mut self,
        totals: &mut [[__m512; T]; PAIRS],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            if F::HALVES {
                let mut parts = [self.dots::<F, FINE, T, N>(0, 4), self.dots::<F, FINE, T, N>(4, 4)];
                for (h, part) in parts.iter_mut().enumerate() {
                    for r in 0..PAIRS {
                        let sub = _mm512_loadu_si512(self.side(1 + F::LANE_OFFSETS + h, r).cast());
                        for t in 0..T {
                            part[r][t] = _mm512_mullo_epi32(part[r][t], sub);
                        }
                    }
                }
                if F::SPLIT && FINE {
                    // Their sum does not fit 32 bits.
                    self.scale::<F, FINE, T, N>(&parts[0], totals);
                } else {
                    for r in 0..PAIRS {
                        for t in 0..T {
                            parts[1][r][t] = _mm512_add_epi32(parts[0][r][t], parts[1][r][t]);
                        }
                    }
                }
                self.scale::<F, FINE, T, N>(&parts[1], totals);
            } else {
                let sums = self.dots::<F, FINE, T, N>(0, N);
                self.scale::<F, FINE, T, N>(&sums, totals);
            }
            self.w = self.w.add(N * 4 * ROWS * LANES);
            self.x = self.x.add(32 * N);
            self.sides = self.sides.add(side_vectors::<F, Unsigned>() * ROWS * LANES);
        }
    }

    /// Vector `i` of the scales and offsets of the pair of rows `r`.
    #[inline(always)]
    unsafe fn side(&self, i: usize, r: usize) -> *const f32 {
        // SAFETY: the caller's promise.
        unsafe { self.sides.add(i * ROWS * LANES + r * 2 * LANES) }
    }

    /// Exact sums of `n` vectors from `from` on, for pairs of rows and tokens.
    #[inline(always)]
    unsafe fn dots<F: Spread, const FINE: bool, const T: usize, const N: usize>(
        &self,
        from: usize,
        n: usize,
    ) -> [[__m512i; T]; PAIRS] {
        // SAFETY: the caller has the instructions and the operands, which are aligned.
        unsafe {
            let mut zeros = [_mm512_setzero_si512(); T];
            if F::BYTE_ZERO != 0 {
                for t in 0..T {
                    zeros[t] = self.zeros::<F, FINE, N>(from, n, t);
                }
            }
            let mut sums = [[_mm512_setzero_si512(); T]; PAIRS];
            if FINE {
                self.dot::<T>(from, n, 0, &mut sums);
                for r in 0..PAIRS {
                    for t in 0..T {
                        sums[r][t] = _mm512_sub_epi32(_mm512_slli_epi32::<8>(sums[r][t]), zeros[t]);
                    }
                }
                self.dot::<T>(from, n, 32 * GROUP_LINES * self.per_token, &mut sums);
            } else {
                for r in 0..PAIRS {
                    for t in 0..T {
                        sums[r][t] = _mm512_sub_epi32(sums[r][t], zeros[t]);
                    }
                }
                self.dot::<T>(from, n, 0, &mut sums);
            }
            sums
        }
    }

    /// Adds the products with the bytes that stand `plane` behind the upper ones.
    #[inline(always)]
    unsafe fn dot<const T: usize>(
        &self,
        from: usize,
        n: usize,
        plane: usize,
        sums: &mut [[__m512i; T]; PAIRS],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut w = self.w.add(from * 4 * ROWS * LANES).cast::<__m512i>();
            let mut x = self.x.add(plane + 32 * from);
            let stride = size_of::<Lines>() * self.per_token;
            for _ in 0..n {
                let mut pairs = [_mm512_setzero_si512(); PAIRS];
                for r in 0..PAIRS {
                    pairs[r] = _mm512_load_si512(w.add(r));
                }
                for t in 0..T {
                    let x = _mm512_broadcast_i64x4(_mm256_load_si256(x.add(t * stride).cast()));
                    for r in 0..PAIRS {
                        sums[r][t] = _mm512_dpbusd_epi32(sums[r][t], pairs[r], x);
                    }
                }
                w = w.add(PAIRS);
                x = x.add(32);
            }
        }
    }

    /// What the bytes' zero adds to the sums of token `t`, in both halves.
    #[inline(always)]
    unsafe fn zeros<F: Spread, const FINE: bool, const N: usize>(
        &self,
        from: usize,
        n: usize,
        t: usize,
    ) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe {
            let zeros = if N == 8 {
                let group = &*self.groups.add(t * self.per_token);
                let sums =
                    if F::HALVES { group.sums16.as_ptr().add(2 * from) } else { group.sums32.as_ptr() };
                // Whole numbers below 2^24.
                let sums = _mm256_cvtps_epi32(_mm256_loadu_ps(sums));
                _mm256_mullo_epi32(sums, _mm256_set1_epi32(F::BYTE_ZERO))
            } else {
                // Lanes hold parts of runs, of which there are no sums.
                let zero = _mm256_set1_epi8(F::BYTE_ZERO as i8);
                let mut x = self.x.add(t * size_of::<Lines>() * self.per_token);
                let mut sums = _mm256_setzero_si256();
                for j in 0..n {
                    sums = _mm256_dpbusd_epi32(sums, zero, _mm256_load_si256(x.add(32 * j).cast()));
                }
                if FINE {
                    sums = _mm256_slli_epi32::<8>(sums);
                    x = x.add(32 * GROUP_LINES * self.per_token);
                    for j in 0..n {
                        sums = _mm256_dpbusd_epi32(sums, zero, _mm256_load_si256(x.add(32 * j).cast()));
                    }
                }
                sums
            };
            _mm512_broadcast_i64x4(zeros)
        }
    }

    /// Adds scaled sums to the totals.
    #[inline(always)]
    unsafe fn scale<F: Spread, const FINE: bool, const T: usize, const N: usize>(
        &self,
        sums: &[[__m512i; T]; PAIRS],
        totals: &mut [[__m512; T]; PAIRS],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            for t in 0..T {
                let x = &*self.groups.add(t * self.per_token);
                let unit = if FINE { _mm512_set1_ps(x.scales[0]) } else { both(units::<N>(x, self.first)) };
                for r in 0..PAIRS {
                    let mut value =
                        _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][t]), _mm512_loadu_ps(self.side(0, r)));
                    for o in 0..F::LANE_OFFSETS {
                        let offset = _mm512_loadu_ps(self.side(1 + o, r));
                        value = _mm512_fmadd_ps(offset, both(lane_sums::<F, N>(x, o, self.first)), value);
                    }
                    totals[r][t] = _mm512_fmadd_ps(value, unit, totals[r][t]);
                }
            }
        }
    }
}

/// For both rows of a register.
///
/// # Safety
/// AVX-512.
#[inline(always)]
pub(super) unsafe fn both(v: __m256) -> __m512 {
    // SAFETY: the caller has AVX-512.
    unsafe { _mm512_broadcast_f32x8(v) }
}

/// [`sum`](super::super::avx2::runs::sum) of both halves of four registers: rows 2 j and 2 j + 1 stand in register j.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn sums(v: [__m512; 4]) -> [f32; 8] {
    let a = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    let b = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
    let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
    let four = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
    let (low, high) = (_mm512_castps512_ps256(four), _mm512_extractf32x8_ps::<1>(four));
    let even = _mm_add_ps(_mm256_castps256_ps128(low), _mm256_extractf128_ps::<1>(low));
    let odd = _mm_add_ps(_mm256_castps256_ps128(high), _mm256_extractf128_ps::<1>(high));
    let mut out = [0.0; 8];
    // SAFETY: the array has eight values.
    unsafe {
        _mm_storeu_ps(out.as_mut_ptr(), _mm_unpacklo_ps(even, odd));
        _mm_storeu_ps(out.as_mut_ptr().add(4), _mm_unpackhi_ps(even, odd));
    }
    out
}
