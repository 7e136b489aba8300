//! Many tokens: rows are unpacked to bytes into a panel, then multiplied in tiles; see `product.rs`.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::avx2::panel::{self, Form, LANES, Rows, Unpack};
use super::super::avx2::runs::steps;
use super::super::avx2::spread::{Spread, lane_sums, units};
use super::product::X;
use crate::activations::{GROUP, Group, Half};
use crate::pool::Tile;
use crate::product::{Product, Residual};
use crate::scratch::{Panel, Scratch};

/// Registers of weights in a tile, of two rows each, and tokens: 12 sums, 12 totals, 4 weights, 1 activation.
const PAIRS: usize = 4;
const TOKENS: usize = 3;
const ROWS: usize = 2 * PAIRS;

/// Steps that some tokens go through before the next ones: of them a tile's rows stay in the first cache.
const BLOCK: usize = 6;

/// Unsigned bytes.
pub(super) type Unsigned = panel::Unsigned<ROWS>;

/// `unpack` makes a panel of some of the product's rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn many<F: Spread>(
    p: &Product<'_>,
    x: X<'_>,
    unpack: Unpack<Unsigned>,
    scratch: &mut Scratch,
    out: &mut Tile<'_, f32>,
) {
    let whole = p.cols / GROUP;
    let blocks = whole.div_ceil(BLOCK).max(1);
    let rows = out.cols();
    for first in rows.clone().step_by(Panel::ROWS) {
        // SAFETY: the caller has the instructions.
        let panel = unsafe { unpack(p, first..rows.end.min(first + Panel::ROWS), scratch) };
        for start in (0..p.tokens).step_by(Panel::TOTALS) {
            let tokens = start..p.tokens.min(start + Panel::TOTALS);
            for block in 0..blocks {
                let steps = whole * block / blocks..whole * (block + 1) / blocks;
                let waiting = scratch.totals.chunks_mut(Panel::TOTALS * ROWS * LANES);
                for ((tile, rows), totals) in panel.tiles().enumerate().zip(waiting) {
                    let part = Part { steps: steps.clone(), last: block + 1 == blocks, totals };
                    // SAFETY: the panel has these rows and `x` these tokens.
                    unsafe { all::<F>(p, rows, x, (tokens.clone(), first + tile * ROWS), part, out) };
                }
            }
        }
    }
}

/// Part of the outputs of some tokens and the rows of a tile, which begin with `first`.
#[inline(always)]
unsafe fn all<F: Spread>(
    p: &Product<'_>,
    rows: Rows,
    x: X<'_>,
    (tokens, first): (Range<usize>, usize),
    part: Part<'_>,
    out: &mut Tile<'_, f32>,
) {
    let per_token = p.cols.div_ceil(GROUP);
    let Part { steps, last, mut totals } = part;
    let mut token = tokens.start;
    while token < tokens.end {
        let coarse = x.coarse[token];
        let alike = x.coarse[token..tokens.end].iter().take(TOKENS);
        let n = alike.take_while(|next| **next == coarse).count();
        let x = X {
            halves: x.halves.map(|half| &half[token * per_token..]),
            groups: &x.groups[token * per_token..],
            coarse: &x.coarse[token..],
        };
        let these;
        (these, totals) = totals.split_at_mut(PAIRS * n * 2 * LANES);
        let part = Part { steps: steps.clone(), last, totals: these };
        // SAFETY: the caller's promise.
        unsafe {
            if coarse {
                tiles::<F, false>(p, rows, x, n, (token, first), part, out);
            } else {
                tiles::<F, true>(p, rows, x, n, (token, first), part, out);
            }
        }
        token += n;
    }
}

/// What of a row is multiplied.
struct Part<'a> {
    /// Steps of 256 columns.
    steps: Range<usize>,
    /// Whether they are the last ones; what is no whole step follows them.
    last: bool,
    /// Where totals stand between two parts: for every pair of rows and token 2 x 8 lanes.
    totals: &'a mut [f32],
}

/// `n` tokens, at most [`TOKENS`], all coarse or all `FINE`.
#[inline(always)]
unsafe fn tiles<F: Spread, const FINE: bool>(
    p: &Product<'_>,
    rows: Rows,
    x: X<'_>,
    n: usize,
    at: (usize, usize),
    part: Part<'_>,
    out: &mut Tile<'_, f32>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match n {
            1 => tile::<F, FINE, 1>(p, rows, x, at, part, out),
            2 => tile::<F, FINE, 2>(p, rows, x, at, part, out),
            _ => tile::<F, FINE, TOKENS>(p, rows, x, at, part, out),
        }
    }
}

/// A part of the outputs of `T` tokens and some rows, from `at` = (token, row), where `rows` and `x` start.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn tile<F: Spread, const FINE: bool, const T: usize>(
    p: &Product<'_>,
    rows: Rows,
    x: X<'_>,
    at: (usize, usize),
    part: Part<'_>,
    out: &mut Tile<'_, f32>,
) {
    let per_token = p.cols.div_ceil(GROUP);
    assert!(x.halves.iter().all(|half| half.len() >= T * per_token) && x.groups.len() >= T * per_token);
    let waiting = part.totals.as_chunks_mut::<{ 2 * LANES }>().0;
    assert!(part.steps.end <= p.cols / GROUP && waiting.len() == PAIRS * T);
    let mut totals = [[_mm512_setzero_ps(); T]; PAIRS];
    // SAFETY: the panel has these steps of these rows, `x` these groups of these tokens.
    unsafe {
        let from = part.steps.start;
        let mut step = Step {
            w: rows.w.add(from * 8 * 4 * ROWS * LANES),
            sides: rows.sides.add(from * Unsigned::sides::<F>() * ROWS * LANES),
            x: x.halves.map(|half| half.as_ptr().add(from).cast()),
            groups: x.groups.as_ptr().add(from),
            per_token,
            first: 0,
        };
        if from > 0 {
            for (r, totals) in totals.iter_mut().enumerate() {
                for (t, total) in totals.iter_mut().enumerate() {
                    *total = _mm512_loadu_ps(waiting[r * T + t].as_ptr());
                }
            }
        }
        for _ in part.steps {
            step.add::<F, FINE, T, 8>(&mut totals);
            step.groups = step.groups.add(1);
        }
        if !part.last {
            for (r, totals) in totals.iter().enumerate() {
                for (t, total) in totals.iter().enumerate() {
                    _mm512_storeu_ps(waiting[r * T + t].as_mut_ptr(), *total);
                }
            }
            return;
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
        let (token, row) = (at.0 + t, at.1);
        if rows.n == ROWS {
            put(p, out, token, row, dots);
        } else {
            let mut each = [0.0; ROWS];
            // SAFETY: the array has eight values.
            unsafe { _mm256_storeu_ps(each.as_mut_ptr(), dots) };
            for (r, &dot) in each[..rows.n].iter().enumerate() {
                p.put(out, token, row + r, dot);
            }
        }
    }
}

/// Finishes the outputs `[token, row..row + ROWS]`. They never leave the register: stored in halves and read as a whole, they took 7% of a
/// product of 1536 columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn put(p: &Product<'_>, out: &mut Tile<'_, f32>, token: usize, row: usize, mut dots: __m256) {
    let start = out.cols().start;
    let slots = &mut out.row(token)[row - start..][..ROWS];
    let mut add = |more: &[f32]| {
        // SAFETY: the slice has eight values.
        dots = unsafe { _mm256_add_ps(dots, _mm256_loadu_ps(more[..ROWS].as_ptr())) };
    };
    if let Some(bias) = p.bias {
        add(&bias[row..]);
    }
    match p.residual {
        Residual::None => {}
        Residual::Out => add(slots),
        Residual::Rows(rows) => add(&rows[token * p.rows + row..]),
    }
    // SAFETY: the slice has eight values.
    unsafe { _mm256_storeu_ps(slots.as_mut_ptr(), dots) };
}

/// Where a step begins.
struct Step {
    w: *const u8,
    sides: *const f32,
    /// The upper and the lower bytes of the first token.
    x: [*const u8; 2],
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
                for h in 0..2 {
                    let sums = self.dots::<F, FINE, T, N>(4 * h, 4);
                    self.scale::<F, FINE, T, N>(h, &sums, totals);
                }
            } else {
                let sums = self.dots::<F, FINE, T, N>(0, N);
                self.scale::<F, FINE, T, N>(0, &sums, totals);
            }
            self.w = self.w.add(N * 4 * ROWS * LANES);
            self.x = self.x.map(|x| x.add(32 * N));
            self.sides = self.sides.add(Unsigned::sides::<F>() * ROWS * LANES);
        }
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
                self.dot::<T>(from, n, 1, &mut sums);
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

    /// Adds the products with the upper (`half` 0) or the lower bytes.
    #[inline(always)]
    unsafe fn dot<const T: usize>(
        &self,
        from: usize,
        n: usize,
        half: usize,
        sums: &mut [[__m512i; T]; PAIRS],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut w = self.w.add(from * 4 * ROWS * LANES).cast::<__m512i>();
            let mut x = self.x[half].add(32 * from);
            let stride = size_of::<Half>() * self.per_token;
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
                let x = self.x.map(|x| x.add(t * size_of::<Half>() * self.per_token));
                let mut sums = _mm256_setzero_si256();
                for j in 0..n {
                    sums = _mm256_dpbusd_epi32(sums, zero, _mm256_load_si256(x[0].add(32 * j).cast()));
                }
                if FINE {
                    sums = _mm256_slli_epi32::<8>(sums);
                    for j in 0..n {
                        sums = _mm256_dpbusd_epi32(sums, zero, _mm256_load_si256(x[1].add(32 * j).cast()));
                    }
                }
                sums
            };
            _mm512_broadcast_i64x4(zeros)
        }
    }

    /// Adds sums to the totals, with scale `h` of every lane.
    #[inline(always)]
    unsafe fn scale<F: Spread, const FINE: bool, const T: usize, const N: usize>(
        &self,
        h: usize,
        sums: &[[__m512i; T]; PAIRS],
        totals: &mut [[__m512; T]; PAIRS],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            for t in 0..T {
                let x = &*self.groups.add(t * self.per_token);
                let unit = if FINE { _mm512_set1_ps(x.scales[0]) } else { both(units::<N>(x, self.first)) };
                for r in 0..PAIRS {
                    let side = |i: usize| _mm512_loadu_ps(self.sides.add(i * ROWS * LANES + r * 2 * LANES));
                    let mut value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][t]), side(h));
                    if F::LANE_OFFSETS > 0 {
                        let sums = both(lane_sums::<F, N>(x, h, self.first));
                        value = _mm512_fmadd_ps(side(F::SCALES + h), sums, value);
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
fn sums(v: [__m512; 4]) -> __m256 {
    let a = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    let b = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
    let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
    let four = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
    let (low, high) = (_mm512_castps512_ps256(four), _mm512_extractf32x8_ps::<1>(four));
    let even = _mm_add_ps(_mm256_castps256_ps128(low), _mm256_extractf128_ps::<1>(low));
    let odd = _mm_add_ps(_mm256_castps256_ps128(high), _mm256_extractf128_ps::<1>(high));
    _mm256_set_m128(_mm_unpackhi_ps(even, odd), _mm_unpacklo_ps(even, odd))
}
