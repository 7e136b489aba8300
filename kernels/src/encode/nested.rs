//! `value = (d * sc) * level`: an f16 scale per 256 values and a small whole one per run of them.
//!
//! ```text
//! 1. every run's own scale, by least squares
//! 2. d, so that the largest of them is the largest sc
//! 3. every run: the sc around its own with the smallest error, exactly as it will be decoded
//! 4. d once more by least squares over all 256, and 3 again; kept where it is better
//! ```

use cchaha_plan::Format;

use super::scaled::{codebook, steps, to_indices};
use super::search::{Affine, Lanes, Levels, Whole, assign, even, fit_scale, pick};
use super::{BlockEncoder, extreme, put_f16, put_nibbles, to_bytes, to_f16};
use crate::simd::{LANES, Simd};

const LEN: usize = 256;
/// Runs at most: 16 of 16 values.
const RUNS: usize = 16;

/// What is to be packed.
struct Block {
    d: f32,
    sc: [f32; RUNS],
    /// Levels.
    q: [f32; LEN],
    error: f32,
}

/// The limits of a format.
#[derive(Clone, Copy)]
struct Shape {
    /// Values of a run.
    run: usize,
    /// The extreme levels.
    ends: [f32; 2],
    /// The extreme `sc`.
    scales: [f32; 2],
    /// How far from the natural step, relative to it, the search goes.
    reach: f32,
}

#[inline(always)]
fn encode<S: Simd, L: Levels<S>>(s: S, levels: L, shape: Shape, x: &[f32], w: &[f32]) -> Block {
    let mut own = [0.0; RUNS];
    for (own, (x, w)) in own.iter_mut().zip(x.chunks_exact(shape.run).zip(w.chunks_exact(shape.run))) {
        let extreme = extreme(s, x);
        if extreme.abs() > f32::MIN_POSITIVE {
            *own = if even(w) {
                let reach = 0.6 * shape.reach;
                fit_scale(s, levels, x, w, &steps::<1>(extreme, shape.ends, 1.0 - reach, 1.0 + reach))
            } else {
                let (from, to) = (1.0 - shape.reach, 1.0 + shape.reach);
                fit_scale(s, levels, x, w, &steps::<3>(extreme, shape.ends, from, to))
            };
        }
    }
    // The signed extreme lies on the lower end, which reaches one further than the upper.
    let first = to_f16(extreme(s, &own) / shape.scales[0]);
    let mut best = with_scale(s, levels, shape, x, w, &own, first);
    let refitted = to_f16(refit(s, shape, x, w, &best));
    if refitted != best.d {
        let other = with_scale(s, levels, shape, x, w, &own, refitted);
        if other.error < best.error {
            best = other;
        }
    }
    best
}

/// The best block with this `d`.
#[inline(always)]
fn with_scale<S: Simd, L: Levels<S>>(
    s: S,
    levels: L,
    shape: Shape,
    x: &[f32],
    w: &[f32],
    own: &[f32; RUNS],
    d: f32,
) -> Block {
    let mut block = Block { d, sc: [0.0; RUNS], q: [0.0; LEN], error: 0.0 };
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let runs =
        x.chunks_exact(shape.run).zip(w.chunks_exact(shape.run)).zip(block.q.chunks_exact_mut(shape.run));
    for (r, ((x, w), q)) in runs.enumerate() {
        let near = s.round(s.splat(own[r] * inverse));
        let around = s.add(near, s.load(&[-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]));
        let around = s.min(s.max(around, s.splat(shape.scales[0])), s.splat(shape.scales[1]));
        let [mut sc, mut scales]: [Lanes; 2] = [[0.0; LANES]; 2];
        s.store(around, &mut sc);
        s.store(s.mul(s.splat(d), around), &mut scales);
        let (chosen, error) = pick(s, levels, x, w, &[(scales, [0.0; LANES])]);
        let lane = scales.iter().position(|&scale| scale == chosen.scale).unwrap_or(0);
        block.sc[r] = sc[lane];
        block.error += error;
        assign(s, levels, x, Affine { scale: scales[lane], offset: 0.0 }, q);
    }
    block
}

/// The `d` with the smallest error for the integers of `block`.
#[inline(always)]
fn refit<S: Simd>(s: S, shape: Shape, x: &[f32], w: &[f32], block: &Block) -> f32 {
    let (mut xq, mut qq) = (0.0f32, 0.0f32);
    let runs = x.chunks_exact(shape.run).zip(w.chunks_exact(shape.run)).zip(block.q.chunks_exact(shape.run));
    for (((x, w), q), sc) in runs.zip(&block.sc) {
        let (mut run_xq, mut run_qq) = (s.splat(0.0), s.splat(0.0));
        let lanes = x.as_chunks::<LANES>().0.iter().zip(w.as_chunks().0).zip(q.as_chunks().0);
        for ((x, w), q) in lanes {
            let (x, q) = (s.load(x), s.load(q));
            let wq = s.mul(s.load(w), q);
            run_xq = s.add(run_xq, s.mul(wq, x));
            run_qq = s.add(run_qq, s.mul(wq, q));
        }
        xq += sc * s.sum(run_xq);
        qq += sc * sc * s.sum(run_qq);
    }
    if qq > 0.0 { xq / qq } else { block.d }
}

/// See [`crate::formats::Q3K`].
pub(crate) struct Q3K;

impl BlockEncoder for Q3K {
    const FORMAT: Format = Format::Q3_K;

    #[inline(always)]
    fn block<S: Simd>(s: S, x: &[f32], w: &[f32], out: &mut [u8]) {
        let shape = Shape { run: 16, ends: [-4.0, 3.0], scales: [-32.0, 31.0], reach: 0.3 };
        let block = encode(s, Whole::new(s, -4.0, 3.0), shape, x, w);
        let (mut q, mut sc) = ([0; LEN], [0; RUNS]);
        to_bytes(&block.q, 4.0, &mut q);
        to_bytes(&block.sc, 32.0, &mut sc);
        out[..96].fill(0);
        for (k, q) in q.chunks_exact(32).enumerate() {
            for (out, q) in out[..32].iter_mut().zip(q) {
                *out |= (q >> 2) << k;
            }
        }
        put_two_bits(&q, &mut out[32..96]);
        put_nibbles(&sc, &mut out[96..104]);
        for j in 0..4 {
            out[104 + j] = (0..4).fold(0, |byte, k| byte | (sc[j + 4 * k] >> 4) << (2 * k));
        }
        put_f16(out, 108, block.d);
    }
}

/// The low two bits of 256 numbers in 64 bytes, four from each quarter of 128.
#[inline(always)]
pub(super) fn put_two_bits(q: &[u8], out: &mut [u8]) {
    for (q, out) in q.chunks_exact(128).zip(out.chunks_exact_mut(32)) {
        for (j, out) in out.iter_mut().enumerate() {
            *out = q[j] & 3 | (q[j + 32] & 3) << 2 | (q[j + 64] & 3) << 4 | (q[j + 96] & 3) << 6;
        }
    }
}

/// See [`crate::formats::Q6K`].
pub(crate) struct Q6K;

impl BlockEncoder for Q6K {
    const FORMAT: Format = Format::Q6_K;

    #[inline(always)]
    fn block<S: Simd>(s: S, x: &[f32], w: &[f32], out: &mut [u8]) {
        let shape = Shape { run: 16, ends: [-32.0, 31.0], scales: [-128.0, 127.0], reach: 0.05 };
        let block = encode(s, Whole::new(s, -32.0, 31.0), shape, x, w);
        let mut q = [0; LEN];
        to_bytes(&block.q, 32.0, &mut q);
        for (half, q) in q.chunks_exact(128).enumerate() {
            put_nibbles(q, &mut out[half * 64..][..64]);
            for j in 0..32 {
                out[128 + half * 32 + j] = (0..4).fold(0, |byte, k| byte | (q[j + 32 * k] >> 4) << (2 * k));
            }
        }
        to_bytes(&block.sc, 0.0, &mut out[192..208]);
        put_f16(out, 208, block.d);
    }
}

/// See [`crate::formats::Iq4Xs`].
pub(crate) struct Iq4Xs;

impl BlockEncoder for Iq4Xs {
    const FORMAT: Format = Format::IQ4_XS;

    #[inline(always)]
    fn block<S: Simd>(s: S, x: &[f32], w: &[f32], out: &mut [u8]) {
        let shape = Shape { run: 32, ends: [-127.0, 113.0], scales: [-32.0, 31.0], reach: 0.2 };
        let block = encode(s, codebook(), shape, x, w);
        let (mut q, mut sc) = ([0; LEN], [0; 8]);
        to_indices(&block.q, &mut q);
        to_bytes(&block.sc[..8], 32.0, &mut sc);
        put_f16(out, 0, block.d);
        let high = sc.iter().enumerate().fold(0u16, |bits, (k, sc)| bits | u16::from(sc >> 4) << (2 * k));
        out[2..4].copy_from_slice(&high.to_le_bytes());
        for k in 0..4 {
            out[4 + k] = sc[2 * k] & 15 | sc[2 * k + 1] << 4;
        }
        for (q, out) in q.chunks_exact(32).zip(out[8..136].chunks_exact_mut(16)) {
            put_nibbles(q, out);
        }
    }
}
