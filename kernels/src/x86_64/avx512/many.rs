//! Many tokens: rows are unpacked to 16 bits into a panel, then multiplied in tiles; see `product.rs`.

use std::arch::x86_64::*;

use super::lanes::{spread, sums};
use super::product::{X, steps};
use super::weights::{Spread, offsets, scales, subs};
use crate::activations::{GROUP, GROUP_LINES, Group};
use crate::pool::Tile;
use crate::product::Product;
use crate::scratch::{Panel, Scratch};

/// Registers of weights in a tile, of two rows each, and tokens: 24 accumulators, 4 weights, 1 activation.
const PAIRS: usize = 4;
const TOKENS: usize = 6;
const ROWS: usize = 2 * PAIRS;

/// Unpacked rows of a tile, `n` of them.
#[derive(Clone, Copy)]
struct Rows {
    w: *const i16,
    sides: *const f32,
    n: usize,
}

/// Lanes of a vector of one row.
const LANES: usize = 8;

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn many<F: Spread>(
    p: &Product<'_>,
    x: X<'_>,
    scratch: &mut Scratch,
    out: &mut Tile<'_, f32>,
) {
    let panel = Panel::of(p.cols);
    let (lines, sides) = (&mut scratch.lines[..panel.lines], &mut scratch.sides[..panel.sides]);
    let per_token = p.cols.div_ceil(GROUP);
    let rows = out.cols();
    for first in rows.clone().step_by(Panel::ROWS) {
        let count = Panel::ROWS.min(rows.end - first);
        for r in 0..count {
            let (tile, lane) = (r / ROWS, r % ROWS * LANES);
            // SAFETY: the panel has room for so many rows of so many columns, and the row is whole.
            unsafe {
                let lines = lines.as_mut_ptr().cast::<i16>().add(tile * ROWS * p.cols + 2 * lane);
                let sides = sides.as_mut_ptr().add(tile * tile_sides::<F>(p.cols) + lane);
                unpack_row::<F>(p.row(first + r).as_ptr(), p.cols, lines, sides);
            }
        }
        for token in (0..p.tokens).step_by(TOKENS) {
            let x = X { lines: &x.lines[token * per_token..], groups: &x.groups[token * per_token..] };
            for r in (0..count).step_by(ROWS) {
                let at = (token, first + r);
                // SAFETY: the panel has these rows and `x` these tokens.
                unsafe {
                    let w = lines.as_ptr().cast::<i16>().add(r * p.cols);
                    let sides = sides.as_ptr().add(r / ROWS * tile_sides::<F>(p.cols));
                    let rows = Rows { w, sides, n: ROWS.min(count - r) };
                    let left = p.tokens - token;
                    match F::LANE_OFFSETS {
                        0 if F::SPLIT => tiles::<0, true>(p, rows, x, left, at, out),
                        0 => tiles::<0, false>(p, rows, x, left, at, out),
                        1 => tiles::<1, false>(p, rows, x, left, at, out),
                        _ => tiles::<2, false>(p, rows, x, left, at, out),
                    }
                }
            }
        }
    }
}

/// Scales and offsets of a tile.
fn tile_sides<F: Spread>(cols: usize) -> usize {
    let n = cols / GROUP + (cols % GROUP / 32).count_ones() as usize;
    n * ROWS * LANES * (1 + F::LANE_OFFSETS)
}

/// One row into its lanes of a tile: `[step][2 N][PAIRS][2 rows][8 lanes][2]` i16, and `[step][scale, offsets][PAIRS][2 rows][8]`.
#[inline(always)]
unsafe fn unpack_row<F: Spread>(mut w: *const u8, cols: usize, mut to: *mut i16, mut sides: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        for _ in 0..cols / GROUP {
            unpack_step::<F, 8>(w, &mut to, &mut sides);
            w = w.add(F::BYTES);
        }
        for (_, runs) in steps(cols % GROUP / 32) {
            match runs {
                4 => unpack_step::<F, 4>(w, &mut to, &mut sides),
                2 => unpack_step::<F, 2>(w, &mut to, &mut sides),
                _ => unpack_step::<F, 1>(w, &mut to, &mut sides),
            }
            w = w.add(runs * F::FORMAT.block_bytes());
        }
    }
}

#[inline(always)]
unsafe fn unpack_step<F: Spread, const N: usize>(w: *const u8, to: &mut *mut i16, sides: &mut *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let head = F::head(w, N);
        _mm256_storeu_ps(*sides, scales::<F, N>(&head));
        *sides = sides.add(ROWS * LANES);
        let offsets = offsets::<F>(&head);
        if F::LANE_OFFSETS > 0 {
            _mm256_storeu_ps(*sides, offsets[0]);
            *sides = sides.add(ROWS * LANES);
        }
        if F::LANE_OFFSETS > 1 {
            _mm256_storeu_ps(*sides, offsets[1]);
            *sides = sides.add(ROWS * LANES);
        }
        let mut subs = subs(&head);
        for sub in &mut subs {
            let low = _mm256_and_si256(*sub, _mm256_set1_epi32(0xffff));
            *sub = _mm256_or_si256(low, _mm256_slli_epi32::<16>(*sub));
        }
        let mut q = [_mm256_setzero_si256(); 8];
        macro_rules! runs {
            ($($b:literal)*) => {{ $(if $b < N { q[$b] = F::load(w, $b); })* }};
        }
        runs!(0 1 2 3 4 5 6 7);
        spread::<N>(&mut q);
        let zero = _mm256_set1_epi16(F::ZERO as i16);
        for j in 0..N {
            let words = if F::SIGNED {
                [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(q[j])), _mm256_srai_epi16::<8>(q[j])]
            } else {
                [_mm256_and_si256(q[j], _mm256_set1_epi16(255)), _mm256_srli_epi16::<8>(q[j])]
            };
            for word in words {
                let mut word = if F::ZERO == 0 { word } else { _mm256_sub_epi16(word, zero) };
                if F::HALVES {
                    word = _mm256_mullo_epi16(word, subs[j / 4]);
                }
                _mm256_store_si256(to.cast(), word);
                *to = to.add(2 * ROWS * LANES);
            }
        }
    }
}

/// Up to [`TOKENS`] tokens.
#[inline(always)]
unsafe fn tiles<const OFFSETS: usize, const SPLIT: bool>(
    p: &Product<'_>,
    rows: Rows,
    x: X<'_>,
    left: usize,
    at: (usize, usize),
    out: &mut Tile<'_, f32>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match left {
            1 => tile::<OFFSETS, SPLIT, 1>(p, rows, x, at, out),
            2 => tile::<OFFSETS, SPLIT, 2>(p, rows, x, at, out),
            3 => tile::<OFFSETS, SPLIT, 3>(p, rows, x, at, out),
            4 => tile::<OFFSETS, SPLIT, 4>(p, rows, x, at, out),
            5 => tile::<OFFSETS, SPLIT, 5>(p, rows, x, at, out),
            _ => tile::<OFFSETS, SPLIT, TOKENS>(p, rows, x, at, out),
        }
    }
}

/// Outputs of `T` tokens and some rows, from `at` = (token, row), where `rows` and `x` start.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn tile<const OFFSETS: usize, const SPLIT: bool, const T: usize>(
    p: &Product<'_>,
    rows: Rows,
    x: X<'_>,
    at: (usize, usize),
    out: &mut Tile<'_, f32>,
) {
    let per_token = p.cols.div_ceil(GROUP);
    let Rows { mut w, mut sides, n: count } = rows;
    assert!(x.lines.len() >= T * per_token && x.groups.len() >= T * per_token);
    let mut totals = [[_mm512_setzero_ps(); T]; PAIRS];
    let mut lines = x.lines.as_ptr().cast::<__m256i>();
    let stride = 2 * GROUP_LINES * per_token;
    for g in 0..per_token {
        let runs = ((p.cols - g * GROUP) / 32).min(GROUP_LINES);
        for (first, n) in steps(runs) {
            for _ in 0..1 + usize::from(SPLIT) {
                let vectors = if SPLIT { n } else { 2 * n };
                // SAFETY: the panel has these steps of these rows, `x` these groups of these tokens.
                unsafe {
                    let sums = dots::<T>(w, lines, stride, vectors);
                    w = w.add(vectors * 2 * ROWS * LANES);
                    lines = lines.add(vectors);
                    let groups = x.groups.as_ptr().add(g);
                    for t in 0..T {
                        let x = &*groups.add(t * per_token);
                        for r in 0..PAIRS {
                            let side = sides.add(r * 2 * LANES);
                            let mut value =
                                _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][t]), _mm512_loadu_ps(side));
                            for o in 0..OFFSETS {
                                let offset = _mm512_loadu_ps(side.add((o + 1) * ROWS * LANES));
                                value = _mm512_fmadd_ps(offset, lane_sums::<OFFSETS>(x, o, first, n), value);
                            }
                            totals[r][t] = _mm512_fmadd_ps(value, _mm512_set1_ps(x.scale), totals[r][t]);
                        }
                    }
                }
            }
            // SAFETY: as above.
            sides = unsafe { sides.add((1 + OFFSETS) * ROWS * LANES) };
        }
    }
    for t in 0..T {
        let dots = sums([totals[0][t], totals[1][t], totals[2][t], totals[3][t]]);
        // A length the compiler knows: with any other it calls memcpy, which took 1% at 896 columns.
        if count == ROWS {
            p.put_run(out, at.0 + t, at.1, &dots);
        } else {
            p.put_run(out, at.0 + t, at.1, &dots[..count]);
        }
    }
}

/// What offset `o` of every lane multiplies, for both rows of a register.
#[inline(always)]
unsafe fn lane_sums<const OFFSETS: usize>(x: &Group, o: usize, first: usize, n: usize) -> __m512 {
    // SAFETY: the caller has the instructions.
    unsafe {
        let sums = if OFFSETS == 2 {
            _mm256_loadu_ps(x.sums16.as_ptr().add(8 * o))
        } else {
            let mask = ((1u32 << n) - 1) as u8;
            _mm256_maskz_loadu_ps(mask, x.sums32.as_ptr().add(first))
        };
        _mm512_broadcast_f32x8(sums)
    }
}

/// Products of `vectors` vectors of `PAIRS` pairs of rows with `T` tokens, which are `stride` vectors apart.
#[inline(always)]
unsafe fn dots<const T: usize>(
    w: *const i16,
    x: *const __m256i,
    stride: usize,
    vectors: usize,
) -> [[__m512i; T]; PAIRS] {
    // SAFETY: the caller has the instructions and the operands, which are aligned.
    unsafe {
        let mut sums = [[_mm512_setzero_si512(); T]; PAIRS];
        let mut w = w.cast::<__m512i>();
        for k in 0..vectors {
            let mut pairs = [_mm512_setzero_si512(); PAIRS];
            for r in 0..PAIRS {
                pairs[r] = _mm512_load_si512(w.add(r));
            }
            for t in 0..T {
                let x = _mm512_broadcast_i64x4(_mm256_load_si256(x.add(t * stride + k)));
                for r in 0..PAIRS {
                    sums[r][t] = _mm512_dpwssd_epi32(sums[r][t], pairs[r], x);
                }
            }
            w = w.add(PAIRS);
        }
        sums
    }
}
