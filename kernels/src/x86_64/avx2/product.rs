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
//! for 8 tokens:  for 2 rows:  for 4 tokens:  all columns:  8 accumulators
//! ```
//! Per 32 products a tile spends 2 vpmaddwd, 1 add, 1 convert, 1 FMA: 5 instructions on 4 pipes, 1.25 cycles, and in practice 1.7;
//! formats with integer scales inside the panel (K-quants) save the last two. Dropped: tiles of 4 x 2 (93 against 103 G
//! operations per second), 3 x 2 (92) and 2 x 3 (97); passes of 4 groups through all tiles, for L1, with sums in memory (their
//! set-up cost more than L1 gave).
//!
//! Coarse tokens: `coarse.rs`.
//!
//! Measured with one thread on weights in L3 (2-core AMD EPYC Zen 4, AVX2 only, 2.7 GHz, 2026-11), one token, GiB/s: Q8_0 18,
//! Q6_K 11.1, Q4_1 10.4, Q4_K 10.3, Q4_0 9.8, Q5_0 9.6; 64 tokens, G operations per second: Q4_K 88, Q5_0 and Q8_0 70,
//! Q6_K 68. Whole model, Qwen2.5-Coder-0.5B Q4_K_M, 2 threads, t/s in one run: 50 (llama.cpp 39; two neighbouring rows of
//! i16 at once with prefetch, as it was before, 37).

use std::arch::x86_64::*;

use super::coarse;
use super::lanes::sum;
use super::weights::{Head, Sub, Weights, ahead, opaque_count, settle};
use crate::activations::{Activations, GROUP, GROUP_LINES, Group, Half, Line, Planes};
use crate::isa::Avx2;
use crate::pool::Tile;
use crate::product::Product;
use crate::scratch::{Panel, Scratch};

/// Rows and tokens of a tile: 8 accumulators, 4 vectors of weights and the temporaries fill the 16 registers.
const ROWS: usize = 2;
const TOKENS: usize = 4;

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

/// The outputs of one tile: columns of the tile are rows of the weight.
pub(super) fn product<F: Weights>(_: Avx2, p: &Product<'_>, scratch: &mut Scratch, out: &mut Tile<'_, f32>) {
    let per_token = p.checked_groups(F::FORMAT, out);
    let Activations { halves, groups, coarse, .. } = p.quantized;
    let mut first = 0;
    for alike in coarse[..p.tokens].chunk_by(|a, b| a == b) {
        let (tokens, these) = ((first, alike.len()), first * per_token..(first + alike.len()) * per_token);
        let halves = halves.each_ref().map(|half| &half[these.clone()]);
        let x = X { halves, groups: &groups[these] };
        // SAFETY: the token proves the instructions; the lengths were checked.
        unsafe {
            match alike {
                [true, ..] => coarse::many::<F>(p, x, tokens, scratch, out),
                [_] => one::<F>(p, x, first, out),
                _ => many::<F>(p, x, tokens, scratch, out),
            }
        }
        first += alike.len();
    }
}

/// Runs of 32 columns in group `g`.
#[inline(always)]
fn blocks(cols: usize, g: usize) -> usize {
    ((cols - g * GROUP) / 32).min(GROUP_LINES)
}

#[inline(always)]
unsafe fn dot(w: [__m256i; 2], x: [*const Half; 2], b: usize) -> __m256i {
    // SAFETY: the caller has AVX2; a half has 32 bytes of every run and is aligned.
    unsafe {
        let [even, odd] = x.map(|half| _mm256_load_si256(half.cast::<__m256i>().add(b)));
        _mm256_add_epi32(_mm256_madd_epi16(w[0], even), _mm256_madd_epi16(w[1], odd))
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
unsafe fn one<F: Weights>(p: &Product<'_>, x: X<'_>, token: usize, out: &mut Tile<'_, f32>) {
    for row in out.cols() {
        let mut total = _mm256_setzero_ps();
        for (g, group) in x.groups.iter().enumerate() {
            // SAFETY: rows and groups were checked by the caller.
            unsafe {
                let w = p.weights.as_ptr().add(row * p.row_bytes + g * F::BYTES);
                ahead(w, F::BYTES);
                let x = (x.halves.map(|half| half.as_ptr().add(g)), group);
                let group = match blocks(p.cols, g) {
                    8 => group_of_one::<F, 8>(w, x, 8),
                    4 => group_of_one::<F, 4>(w, x, 4),
                    2 => group_of_one::<F, 2>(w, x, 2),
                    n => group_of_one::<F, 0>(w, x, n),
                };
                total = _mm256_fmadd_ps(group, _mm256_set1_ps(x.1.scales[0]), total);
            }
        }
        // SAFETY: AVX2 is there.
        p.put(out, token, row, unsafe { sum(total) });
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
unsafe fn group_of_one<F: Weights, const N: usize>(
    w: *const u8,
    x: ([*const Half; 2], &Group),
    blocks: usize,
) -> __m256 {
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
        offsets::<F>(sums.group, head.offset.as_ptr(), x.1)
    }
}

/// Adds run `b`; at the end of its span the i32 sums move on to the floats.
#[inline(always)]
unsafe fn run_of_one<F: Weights>(
    w: *const u8,
    head: &Head,
    x: ([*const Half; 2], &Group),
    b: usize,
    sums: &mut Sums,
) {
    let per_span = GROUP_LINES / F::SPANS;
    // SAFETY: `w` holds run `b`.
    unsafe {
        let q = F::load(w, b);
        if F::SIGNED {
            sums.low = _mm256_add_epi32(sums.low, dot(words::<F>(q, &head.sub, b), x.0, b));
        } else {
            let [high, low] = products(q, &x.1.planes[b]);
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

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn many<F: Weights>(
    p: &Product<'_>,
    x: X<'_>,
    (first_token, tokens): (usize, usize),
    scratch: &mut Scratch,
    out: &mut Tile<'_, f32>,
) {
    let per_row = p.cols.div_ceil(GROUP);
    let groups = Panel::ROWS * per_row;
    let lines = &mut scratch.lines[..groups * GROUP_LINES];
    let sides = &mut scratch.sides[..groups * Panel::SIDES];
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
        for token in (0..tokens).step_by(Panel::TOKENS) {
            let end = tokens.min(token + Panel::TOKENS);
            for r in (0..count).step_by(ROWS) {
                let lines = &lines[r * per_row * GROUP_LINES..];
                let sides = &sides[r * per_row * Panel::SIDES..];
                for t in (token..end).step_by(TOKENS) {
                    let x = x.from(t * per_row);
                    let at = (first_token + t, first + r);
                    // SAFETY: the panel has these rows and `x` these tokens.
                    unsafe {
                        match (count - r, end - t) {
                            (ROWS.., TOKENS..) => tile::<F, ROWS, TOKENS>(p, lines, sides, x, at, out),
                            (ROWS.., _) => singles::<F, ROWS>(p, lines, sides, x, at, end - t, out),
                            (_, _) => singles::<F, 1>(p, lines, sides, x, at, TOKENS.min(end - t), out),
                        }
                    }
                }
            }
        }
    }
}

/// `tokens` tokens one by one.
#[inline(always)]
unsafe fn singles<F: Weights, const R: usize>(
    p: &Product<'_>,
    lines: &[Line],
    sides: &[f32],
    x: X<'_>,
    at: (usize, usize),
    tokens: usize,
    out: &mut Tile<'_, f32>,
) {
    let per_row = p.cols.div_ceil(GROUP);
    for t in 0..tokens {
        let x = x.from(t * per_row);
        // SAFETY: the caller's promise.
        unsafe { tile::<F, R, 1>(p, lines, sides, x, (at.0 + t, at.1), out) };
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

/// Outputs of `T` tokens and `R` rows, from `at` = (token, row), where `lines`, `sides` and `x` start: `[row][group][8]`,
/// `[row][group][8 scales, 16 offsets]` and `[token][group]`.
///
/// A function of its own, walking whole rows: inlined, or called for a few groups at a time, its set-up took a third of the time.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<F: Weights, const R: usize, const T: usize>(
    p: &Product<'_>,
    lines: &[Line],
    sides: &[f32],
    x: X<'_>,
    at: (usize, usize),
    out: &mut Tile<'_, f32>,
) {
    let per_row = p.cols.div_ceil(GROUP);
    assert!(lines.len() >= R * per_row * GROUP_LINES && sides.len() >= R * per_row * Panel::SIDES);
    assert!(x.halves.iter().all(|half| half.len() >= T * per_row) && x.groups.len() >= T * per_row);
    let mut totals = [[_mm256_setzero_ps(); T]; R];
    for g in 0..per_row {
        // SAFETY: AVX2 is the caller's promise, the lengths were checked.
        unsafe {
            let w = lines.as_ptr().add(g * GROUP_LINES);
            let sides = sides.as_ptr().add(g * Panel::SIDES);
            let (halves, groups) = (x.halves.map(|half| half.as_ptr().add(g)), x.groups.as_ptr().add(g));
            let sums = group_of_many::<F, R, T>(w, sides, halves, per_row, blocks(p.cols, g));
            for t in 0..T {
                let x = &*groups.add(t * per_row);
                for r in 0..R {
                    let offset = sides.add(r * per_row * Panel::SIDES + 8);
                    let group = offsets::<F>(sums[r][t], offset, x);
                    totals[r][t] = _mm256_fmadd_ps(group, _mm256_set1_ps(x.scales[0]), totals[r][t]);
                }
            }
        }
    }
    for t in 0..T {
        for r in 0..R {
            // SAFETY: AVX2 is there.
            p.put(out, at.0 + t, at.1 + r, unsafe { sum(totals[r][t]) });
        }
    }
}

/// Sums of `R` rows times `T` tokens over a group; rows are `per_row` groups apart.
///
/// [`opaque`] keeps runs apart: left alone, the compiler unrolls them all, reassociates the integer sums and then spills a
/// hundred registers.
#[inline(always)]
unsafe fn group_of_many<F: Weights, const R: usize, const T: usize>(
    w: *const Line,
    sides: *const f32,
    x: [*const Half; 2],
    per_row: usize,
    blocks: usize,
) -> [[__m256; T]; R] {
    // SAFETY: AVX2 is the caller's promise; lines are aligned; every row and token has this group.
    unsafe {
        let mut groups = [[_mm256_setzero_ps(); T]; R];
        if F::SPANS == GROUP_LINES {
            let mut b = 0;
            while b < blocks {
                let mut scales = [_mm256_setzero_ps(); R];
                let mut lines = [[_mm256_setzero_si256(); 2]; R];
                for r in 0..R {
                    scales[r] = _mm256_set1_ps(*sides.add(r * per_row * Panel::SIDES + b));
                    lines[r] = line(w.add(r * per_row * GROUP_LINES + b));
                }
                for t in 0..T {
                    let x = x.map(|half| half.add(t * per_row));
                    for r in 0..R {
                        let dot = _mm256_cvtepi32_ps(dot(lines[r], x, b));
                        groups[r][t] = _mm256_fmadd_ps(dot, scales[r], groups[r][t]);
                    }
                }
                b = opaque_count(b + 1);
            }
            return groups;
        }
        let per_span = GROUP_LINES / F::SPANS;
        for span in 0..F::SPANS {
            let mut sums = [[_mm256_setzero_si256(); T]; R];
            let mut b = span * per_span;
            let end = b + per_span;
            while b < end {
                let mut lines = [[_mm256_setzero_si256(); 2]; R];
                for r in 0..R {
                    lines[r] = line(w.add(r * per_row * GROUP_LINES + b));
                }
                for t in 0..T {
                    let x = x.map(|half| half.add(t * per_row));
                    for r in 0..R {
                        sums[r][t] = _mm256_add_epi32(sums[r][t], dot(lines[r], x, b));
                    }
                }
                b = opaque_count(b + 1);
            }
            for r in 0..R {
                let scale = _mm256_set1_ps(*sides.add(r * per_row * Panel::SIDES + span));
                for t in 0..T {
                    groups[r][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[r][t]), scale, groups[r][t]);
                }
            }
        }
        groups
    }
}

#[inline(always)]
unsafe fn line(line: *const Line) -> [__m256i; 2] {
    // SAFETY: the caller has AVX2; lines are two aligned vectors.
    unsafe {
        let at = line.cast::<__m256i>();
        [_mm256_load_si256(at), _mm256_load_si256(at.add(1))]
    }
}
