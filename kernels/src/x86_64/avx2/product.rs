//! Matrix products of quantized weights with 16-bit activations: one loop for all formats.
//!
//! ```text
//! out[t, r] = sum over groups g of 256 columns:  sx[t, g] * ( sum over spans s:    scale[r, s] * float(i32 sum of w x)
//!                                                          + sum over offsets o:  offset[r, o] * sum of x under o )
//!
//! one token    w, 32 bytes    vpmaddubsw   upper bytes of x    vpmaddwd   256 or its integer scales    -> 8 lanes of i32,
//!                             vpmaddubsw   lower bytes of x    vpmaddwd     1 or its integer scales       added up over a span
//! many tokens  w, 2 x 16 i16 (even, odd)   vpmaddwd   x, 2 x 16 i16 (even, odd)                        -> the same 8 sums
//! ```
//! Each `(t, r)` owns eight f32 lanes per group and eight in total, and adds spans, then offsets, then groups in order:
//! the i32 part is exact and lane k holds the products of columns 4 k to 4 k + 3 either way, so one token (rows straight from the
//! mapped file) and many (rows unpacked to i16 once per panel) give the same bits, whatever the tile, the batch and the threads.
//!
//! One token is bound by unpacking, so weights stay bytes: per 32 of them Q5_0 takes 22 instructions instead of the 31 that
//! widening to i16 takes. Signed weights (Q8_0 and the codebooks) would overflow vpmaddubsw and are widened.
//! One row at a time, in the order of the file, is what the hardware prefetcher follows: single thread from DRAM, Q8_0 17.6
//! GB/s; with software prefetch 16.5; two neighbouring rows at once 8.8 with and 5.2 without software prefetch; two rows half a
//! matrix apart 21.6, but only in parts of 256 KiB and more, which small matrices do not have.
//!
//! Many tokens are bound by arithmetic: 16 rows are unpacked into an L2-sized panel, then
//!
//! ```text
//! for 8 tokens:  for 4 groups (1024 columns; 20 KiB of activations stay in L1):  for 2 rows:  for 4 tokens:  8 accumulators
//! ```
//! Per 32 products a tile spends 2 vpmaddwd, 1 add, 1 convert, 1 FMA: 5 instructions on 4 pipes, 1.25 cycles; formats with
//! integer scales inside the panel (K-quants) save the last two.
//!
//! Measured with one thread on weights in L3 (2-core AMD EPYC Zen 4, AVX2 only, 2.7 GHz, 2026-11), one token, GiB/s: Q8_0 18,
//! Q6_K 11.1, Q4_1 10.4, Q4_K 10.3, Q4_0 9.8, Q5_0 9.6; 64 tokens, G operations per second: Q4_K 79, Q5_0 and Q8_0 64, Q4_1 and
//! Q6_K 60. Whole model, Qwen2.5-Coder-0.5B Q4_K_M, 2 threads, t/s in one run: 50 (llama.cpp 39; two neighbouring rows of
//! i16 at once with prefetch, as it was before, 37).

use std::arch::x86_64::*;

use super::lanes::sum;
use super::weights::{Head, Sub, Weights, settle};
use crate::activations::{GROUP, GROUP_LINES, Group, Line, Planes};
use crate::isa::Avx2;
use crate::pool::Tile;
use crate::product::Product;
use crate::scratch::{Panel, Scratch};

/// Groups of a pass over the panel.
const PASS: usize = 4;

/// The outputs of one tile: columns of the tile are rows of the weight.
pub(super) fn product<F: Weights>(_: Avx2, p: &Product<'_>, scratch: &mut Scratch, out: &mut Tile<'_, f32>) {
    let per_token = p.cols.div_ceil(GROUP);
    assert_eq!(p.format, F::FORMAT, "a kernel gets its own format");
    assert_eq!(p.format.row_bytes(p.cols), Some(p.row_bytes), "rows are whole blocks");
    assert!(p.weights.len() >= p.rows * p.row_bytes && out.cols().end <= p.rows, "all rows are there");
    assert_eq!(p.quantized.per_token, per_token, "activations have the weight's columns");
    let x = &p.quantized.groups[..p.tokens * per_token];
    // SAFETY: the token proves the instructions; the lengths were checked.
    unsafe { if p.tokens == 1 { one::<F>(p, x, out) } else { many::<F>(p, x, scratch, out) } }
}

/// Runs of 32 columns in group `g`.
#[inline(always)]
fn blocks(cols: usize, g: usize) -> usize {
    ((cols - g * GROUP) / 32).min(GROUP_LINES)
}

#[inline(always)]
unsafe fn dot(w: [__m256i; 2], x: &Line) -> __m256i {
    // SAFETY: the caller has AVX2; a line has 32 values and is aligned.
    unsafe {
        let x = x.0.as_ptr().cast::<__m256i>();
        _mm256_add_epi32(
            _mm256_madd_epi16(w[0], _mm256_load_si256(x)),
            _mm256_madd_epi16(w[1], _mm256_load_si256(x.add(1))),
        )
    }
}

/// `group + sum of offsets * sums of x`.
#[inline(always)]
unsafe fn offsets<F: Weights>(group: __m256, offset: *const f32, x: &Group) -> __m256 {
    // SAFETY: the caller has AVX2 and `F::OFFSETS` offsets.
    unsafe {
        match F::OFFSETS {
            0 => group,
            8 => _mm256_fmadd_ps(_mm256_loadu_ps(offset), _mm256_load_ps(x.sums32.as_ptr()), group),
            _ => {
                let sums = x.sums16.as_ptr();
                let group = _mm256_fmadd_ps(_mm256_loadu_ps(offset), _mm256_loadu_ps(sums), group);
                _mm256_fmadd_ps(_mm256_loadu_ps(offset.add(8)), _mm256_loadu_ps(sums.add(8)), group)
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn one<F: Weights>(p: &Product<'_>, x: &[Group], out: &mut Tile<'_, f32>) {
    for row in out.cols() {
        let mut total = _mm256_setzero_ps();
        for (g, x) in x.iter().enumerate() {
            // SAFETY: rows and groups were checked by the caller.
            unsafe {
                let w = p.weights.as_ptr().add(row * p.row_bytes + g * F::BYTES);
                let group = match blocks(p.cols, g) {
                    8 => group_of_one::<F, 8>(w, x, 8),
                    4 => group_of_one::<F, 4>(w, x, 4),
                    2 => group_of_one::<F, 2>(w, x, 2),
                    n => group_of_one::<F, 0>(w, x, n),
                };
                total = _mm256_fmadd_ps(group, _mm256_set1_ps(x.scale), total);
            }
        }
        // SAFETY: AVX2 is there.
        p.put(out, 0, row, unsafe { sum(total) });
    }
}

/// Sums of one row over a group.
#[derive(Clone, Copy)]
struct Sums {
    /// Of the span so far, times the upper bytes of the activations. Only with integer scales.
    high: __m256i,
    /// Of the span so far, times the lower bytes, or times the activations where the weights are signed.
    low: __m256i,
    /// Of the spans before.
    group: __m256,
}

/// A group of `blocks` runs: 8, at the end of a row 4 or 2 for the widths models have, and any (`N` = 0) for the rest.
#[inline(always)]
unsafe fn group_of_one<F: Weights, const N: usize>(w: *const u8, x: &Group, blocks: usize) -> __m256 {
    let blocks = if N == 0 { blocks } else { N };
    // SAFETY: `w` holds `blocks` runs of 32 values.
    unsafe {
        let mut head = F::head(w, blocks);
        // What is broadcast once a run is loaded broadcast.
        if F::SPANS == 8 {
            settle(&mut head.scale);
        } else {
            settle(&mut head.sub);
        }
        let zero = _mm256_setzero_si256();
        let mut sums = Sums { high: zero, low: zero, group: _mm256_setzero_ps() };
        // Spelled out: unpacking needs `b` as a constant, and the compiler does not unroll a body this long.
        macro_rules! runs {
            ($($b:literal)*) => {{ $(run_of_one::<F>(w, &head, x, $b, &mut sums);)* }};
        }
        match N {
            8 => runs!(0 1 2 3 4 5 6 7),
            4 => runs!(0 1 2 3),
            2 => runs!(0 1),
            _ => {
                for b in 0..blocks {
                    run_of_one::<F>(w, &head, x, b, &mut sums);
                }
            }
        }
        offsets::<F>(sums.group, head.offset.as_ptr(), x)
    }
}

/// Adds run `b`; at the end of its span the i32 sums move on to the floats.
#[inline(always)]
unsafe fn run_of_one<F: Weights>(w: *const u8, head: &Head, x: &Group, b: usize, sums: &mut Sums) {
    let per_span = GROUP_LINES / F::SPANS;
    // SAFETY: `w` holds run `b`.
    unsafe {
        let q = F::load(w, b);
        if F::SIGNED {
            sums.low = _mm256_add_epi32(sums.low, dot(words::<F>(q, &head.sub, b), &x.q[b]));
        } else {
            let [high, low] = products(q, &x.planes[b]);
            if F::SUB == Sub::None {
                let high = _mm256_madd_epi16(high, _mm256_set1_epi16(256));
                sums.low = _mm256_add_epi32(high, _mm256_madd_epi16(low, _mm256_set1_epi16(1)));
            } else {
                let sub = sub::<F>(&head.sub, b);
                sums.high = _mm256_add_epi32(sums.high, _mm256_madd_epi16(high, sub));
                sums.low = _mm256_add_epi32(sums.low, _mm256_madd_epi16(low, sub));
            }
        }
        if b % per_span == per_span - 1 {
            if !F::SIGNED && F::SUB != Sub::None {
                // May wrap; the sum, which fits, does not mind.
                sums.low = _mm256_add_epi32(sums.low, _mm256_slli_epi32::<8>(sums.high));
                sums.high = _mm256_setzero_si256();
            }
            let scale = _mm256_set1_ps(head.scale[b / per_span]);
            sums.group = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums.low), scale, sums.group);
            sums.low = _mm256_setzero_si256();
        }
    }
}

/// Sums of two products each of unsigned bytes with the upper and with the lower bytes of activations.
#[inline(always)]
unsafe fn products(q: __m256i, x: &Planes) -> [__m256i; 2] {
    // SAFETY: the caller has AVX2; planes are two aligned vectors.
    unsafe {
        let x = x.0.as_ptr().cast::<__m256i>();
        [_mm256_maddubs_epi16(q, _mm256_load_si256(x)), _mm256_maddubs_epi16(q, _mm256_load_si256(x.add(1)))]
    }
}

/// The integer scales of run `b` in 16 lanes: of bytes 2 k and 2 k + 1 in lane k.
#[inline(always)]
unsafe fn sub<F: Weights>(sub: &[i16; 16], b: usize) -> __m256i {
    // SAFETY: the caller has AVX2; there are two scales of every run.
    unsafe {
        let at = sub.as_ptr();
        if F::SUB == Sub::Runs {
            _mm256_set1_epi32(at.add(2 * b).cast::<i32>().read_unaligned())
        } else {
            let four_runs = _mm256_broadcastsi128_si256(_mm_loadu_si128(at.add(b / 4 * 8).cast()));
            let [first, second] =
                [4 * (b % 4) as i16, 4 * (b % 4) as i16 + 2].map(|byte| byte | (byte + 1) << 8);
            let which = _mm256_set_m128i(_mm_set1_epi16(second), _mm_set1_epi16(first));
            _mm256_shuffle_epi8(four_runs, which)
        }
    }
}

/// 32 bytes as [`Line`]s order them, times their integer scales.
#[inline(always)]
unsafe fn words<F: Weights>(q: __m256i, subs: &[i16; 16], b: usize) -> [__m256i; 2] {
    // SAFETY: the caller has AVX2.
    unsafe {
        let words = if F::SIGNED {
            [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(q)), _mm256_srai_epi16::<8>(q)]
        } else {
            [_mm256_and_si256(q, _mm256_set1_epi16(255)), _mm256_srli_epi16::<8>(q)]
        };
        if F::SUB == Sub::None {
            return words;
        }
        let sub = sub::<F>(subs, b);
        [_mm256_mullo_epi16(words[0], sub), _mm256_mullo_epi16(words[1], sub)]
    }
}

/// A panel of unpacked rows: `lines` is `[row][group][8]`, `sides` is `[row][group][8 scales, 16 offsets]`.
#[derive(Clone, Copy)]
struct Unpacked<'a> {
    lines: &'a [Line],
    sides: &'a [f32],
    cols: usize,
    per_row: usize,
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn many<F: Weights>(p: &Product<'_>, x: &[Group], scratch: &mut Scratch, out: &mut Tile<'_, f32>) {
    let per_row = p.cols.div_ceil(GROUP);
    let groups = Panel::ROWS * per_row;
    let lines = &mut scratch.lines[..groups * GROUP_LINES];
    let (sides, totals) = scratch.sides.split_at_mut(groups * Panel::SIDES);
    let totals = totals[..Panel::ROWS * Panel::TOKENS * 8].as_chunks_mut::<8>().0;
    let rows = out.cols();
    for first in rows.clone().step_by(Panel::ROWS) {
        let count = Panel::ROWS.min(rows.end - first);
        for r in 0..count {
            let w = p.row(first + r).as_ptr();
            for g in 0..per_row {
                let to = r * per_row + g;
                let lines = &mut lines[to * GROUP_LINES..][..GROUP_LINES];
                let sides = &mut sides[to * Panel::SIDES..][..Panel::SIDES];
                // SAFETY: the row is whole.
                unsafe { unpack::<F>(w.add(g * F::BYTES), blocks(p.cols, g), lines, sides) };
            }
        }
        let panel = Unpacked { lines, sides, cols: p.cols, per_row };
        for token in (0..p.tokens).step_by(Panel::TOKENS) {
            let tokens = Panel::TOKENS.min(p.tokens - token);
            totals.fill([0.0; 8]);
            for pass in (0..per_row).step_by(PASS) {
                let pass = pass..(pass + PASS).min(per_row);
                for r in (0..count).step_by(2) {
                    for t in (0..tokens).step_by(4) {
                        let x = &x[(token + t) * per_row..];
                        let totals = &mut totals[r * Panel::TOKENS + t..];
                        let (g, n) = (pass.clone(), (count - r, tokens - t));
                        // SAFETY: the panel has these rows, `x` these tokens, `totals` both.
                        unsafe {
                            match n {
                                (2.., 4..) => tile::<F, 2, 4>(panel, r, g, x, totals),
                                (2.., 3) => tile::<F, 2, 3>(panel, r, g, x, totals),
                                (2.., 2) => tile::<F, 2, 2>(panel, r, g, x, totals),
                                (2.., _) => tile::<F, 2, 1>(panel, r, g, x, totals),
                                (_, 4..) => tile::<F, 1, 4>(panel, r, g, x, totals),
                                (_, 3) => tile::<F, 1, 3>(panel, r, g, x, totals),
                                (_, 2) => tile::<F, 1, 2>(panel, r, g, x, totals),
                                (_, _) => tile::<F, 1, 1>(panel, r, g, x, totals),
                            }
                        }
                    }
                }
            }
            for t in 0..tokens {
                for r in 0..count {
                    let total = &totals[r * Panel::TOKENS + t];
                    // SAFETY: eight values.
                    let dot = unsafe { sum(_mm256_loadu_ps(total.as_ptr())) };
                    p.put(out, token + t, first + r, dot);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn unpack<F: Weights>(w: *const u8, blocks: usize, lines: &mut [Line], sides: &mut [f32]) {
    // SAFETY: the caller's promise; a line has two vectors.
    unsafe {
        let head = F::head(w, blocks);
        sides[..8].copy_from_slice(&head.scale);
        sides[8..24].copy_from_slice(&head.offset);
        for (b, line) in lines.iter_mut().enumerate().take(blocks) {
            let [even, odd] = words::<F>(F::load(w, b), &head.sub, b);
            let to = line.0.as_mut_ptr().cast::<__m256i>();
            _mm256_store_si256(to, even);
            _mm256_store_si256(to.add(1), odd);
        }
    }
}

/// Adds groups `pass` of `R` rows times `T` tokens to `totals`, `[row][Panel::TOKENS]` from the tile's corner.
#[inline(always)]
unsafe fn tile<F: Weights, const R: usize, const T: usize>(
    panel: Unpacked<'_>,
    row: usize,
    pass: std::ops::Range<usize>,
    x: &[Group],
    totals: &mut [[f32; 8]],
) {
    let per_row = panel.per_row;
    for g in pass {
        let n = blocks(panel.cols, g);
        let w: [&[Line; GROUP_LINES]; R] = std::array::from_fn(|r| {
            let from = ((row + r) * per_row + g) * GROUP_LINES;
            panel.lines[from..].first_chunk().expect("invariant: the panel has whole groups")
        });
        let sides: [&[f32; Panel::SIDES]; R] = std::array::from_fn(|r| {
            let from = ((row + r) * per_row + g) * Panel::SIDES;
            panel.sides[from..].first_chunk().expect("invariant: the panel has whole groups")
        });
        let x: [&Group; T] = std::array::from_fn(|t| &x[t * per_row + g]);
        // SAFETY: AVX2 is the caller's promise; the rest is references.
        unsafe {
            let groups = if n == GROUP_LINES {
                group_of_many::<F, R, T>(w, sides, x, GROUP_LINES)
            } else {
                group_of_many::<F, R, T>(w, sides, x, n)
            };
            for r in 0..R {
                for t in 0..T {
                    let group = offsets::<F>(groups[r][t], sides[r].as_ptr().add(8), x[t]);
                    let total = totals[r * Panel::TOKENS + t].as_mut_ptr();
                    let sum = _mm256_fmadd_ps(group, _mm256_set1_ps(x[t].scale), _mm256_loadu_ps(total));
                    _mm256_storeu_ps(total, sum);
                }
            }
        }
    }
}

/// Line `b` of every row.
#[inline(always)]
unsafe fn vectors<const R: usize>(w: [&[Line; GROUP_LINES]; R], b: usize) -> [[__m256i; 2]; R] {
    // SAFETY: the caller has AVX2; lines are aligned.
    unsafe {
        let mut out = [[_mm256_setzero_si256(); 2]; R];
        for r in 0..R {
            let at = w[r][b].0.as_ptr().cast::<__m256i>();
            out[r] = [_mm256_load_si256(at), _mm256_load_si256(at.add(1))];
        }
        out
    }
}

#[inline(always)]
unsafe fn group_of_many<F: Weights, const R: usize, const T: usize>(
    w: [&[Line; GROUP_LINES]; R],
    sides: [&[f32; Panel::SIDES]; R],
    x: [&Group; T],
    blocks: usize,
) -> [[__m256; T]; R] {
    // SAFETY: AVX2 is the caller's promise; lines are aligned.
    unsafe {
        let mut groups = [[_mm256_setzero_ps(); T]; R];
        if F::SPANS == 8 {
            for b in 0..blocks {
                let w = vectors(w, b);
                for t in 0..T {
                    for r in 0..R {
                        let scale = _mm256_set1_ps(sides[r][b]);
                        let dot = _mm256_cvtepi32_ps(dot(w[r], &x[t].q[b]));
                        groups[r][t] = _mm256_fmadd_ps(dot, scale, groups[r][t]);
                    }
                }
            }
        } else {
            let per_span = 8 / F::SPANS;
            for span in 0..F::SPANS {
                let mut sums = [[_mm256_setzero_si256(); T]; R];
                for b in span * per_span..(span + 1) * per_span {
                    let w = vectors(w, b);
                    for t in 0..T {
                        for r in 0..R {
                            sums[r][t] = _mm256_add_epi32(sums[r][t], dot(w[r], &x[t].q[b]));
                        }
                    }
                }
                for r in 0..R {
                    let scale = _mm256_set1_ps(sides[r][span]);
                    for t in 0..T {
                        groups[r][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[r][t]), scale, groups[r][t]);
                    }
                }
            }
        }
        groups
    }
}
