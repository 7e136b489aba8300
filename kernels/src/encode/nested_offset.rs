//! `value = (d * sc) * q - (dmin * m)`: two f16 scales per 256 values, and a small `sc` and `m` per run of them.
//!
//! ```text
//! 1. every run's own scale and offset, by least squares
//! 2. d and dmin, so that the largest of them are the largest sc and m
//! 3. every run: the (sc, m) around its own with the smallest error, exactly as it will be decoded
//! 4. d and dmin once more by least squares over all 256, and 3 again; kept where it is better
//! ```

use cchaha_plan::Format;

use super::nested::put_two_bits;
use super::offset::fit;
use super::search::{Affine, Lanes, Whole, assign, pick};
use super::{BlockEncoder, put_f16, put_nibbles, range, to_bytes, to_f16};
use crate::simd::{LANES, Simd};

const LEN: usize = 256;
/// Runs at most: 16 of 16 values.
const RUNS: usize = 16;

/// The limits of a format.
#[derive(Clone, Copy)]
struct Shape {
    /// Values of a run.
    run: usize,
    /// The largest `q`.
    top: f32,
    /// The largest `sc` and `m`.
    scales: f32,
}

/// What is to be packed.
struct Block {
    d: f32,
    dmin: f32,
    sc: [f32; RUNS],
    m: [f32; RUNS],
    q: [f32; LEN],
    error: f32,
}

#[inline(always)]
fn encode<S: Simd>(s: S, shape: Shape, x: &[f32], w: &[f32]) -> Block {
    let mut own = [Affine::default(); RUNS];
    for (own, (x, w)) in own.iter_mut().zip(x.chunks_exact(shape.run).zip(w.chunks_exact(shape.run))) {
        let (low, high) = range(s, x);
        let low = low.min(0.0);
        let step = (high - low) / shape.top;
        *own = if step > f32::MIN_POSITIVE {
            fit(s, shape.top, x, w, (low, high), true)
        } else {
            Affine { scale: 0.0, offset: low }
        };
    }
    let largest = |of: fn(&Affine) -> f32| own.iter().map(of).fold(0.0, f32::max) / shape.scales;
    let (d, dmin) = (to_f16(largest(|own| own.scale)), to_f16(largest(|own| -own.offset)));
    let mut best = with_scales(s, shape, x, w, &own, d, dmin);
    for _ in 0..1 {
        let (d, dmin) = refit(s, shape, x, w, &best);
        let other = with_scales(s, shape, x, w, &own, to_f16(d), to_f16(dmin));
        if other.error < best.error {
            best = other;
        } else {
            break;
        }
    }
    best
}

/// What is tried around the natural `(sc, m)`: three scales, and for each five offsets around the one that keeps the
/// middle of the range where it was.
const AROUND: [(Lanes, Lanes); 2] = [
    ([0.0, 0.0, 0.0, 0.0, 0.0, -1.0, -1.0, -1.0], [0.0, -1.0, 1.0, -2.0, 2.0, 0.0, -1.0, 1.0]),
    ([-1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [-2.0, 2.0, 0.0, -1.0, 1.0, -2.0, 2.0, 0.0]),
];

/// The best block with these `d` and `dmin`.
#[inline(always)]
fn with_scales<S: Simd>(
    s: S,
    shape: Shape,
    x: &[f32],
    w: &[f32],
    own: &[Affine; RUNS],
    d: f32,
    dmin: f32,
) -> Block {
    let mut block = Block { d, dmin, sc: [0.0; RUNS], m: [0.0; RUNS], q: [0.0; LEN], error: 0.0 };
    let inverse = |x: f32| if x == 0.0 { 0.0 } else { 1.0 / x };
    let (inverse_d, inverse_dmin) = (inverse(d), inverse(dmin));
    let levels = Whole::new(s, 0.0, shape.top);
    let middle = 0.5 * shape.top;
    let runs =
        x.chunks_exact(shape.run).zip(w.chunks_exact(shape.run)).zip(block.q.chunks_exact_mut(shape.run));
    for (r, ((x, w), q)) in runs.enumerate() {
        let near = s.round(s.splat(own[r].scale * inverse_d));
        let clamp = |v| s.min(s.max(v, s.splat(0.0)), s.splat(shape.scales));
        let (mut whole, mut stored) = ([([0.0; LANES], [0.0; LANES]); 2], [([0.0; LANES], [0.0; LANES]); 2]);
        for ((whole, stored), (sc, m)) in whole.iter_mut().zip(&mut stored).zip(&AROUND) {
            let sc = clamp(s.add(near, s.load(sc)));
            let scale = s.mul(s.splat(d), sc);
            let moved = s.mul(s.splat(middle), s.sub(s.splat(own[r].scale), scale));
            let offset = s.add(s.splat(own[r].offset), moved);
            let natural = s.round(s.mul(s.sub(s.splat(0.0), offset), s.splat(inverse_dmin)));
            let m = clamp(s.add(natural, s.load(m)));
            s.store(sc, &mut whole.0);
            s.store(m, &mut whole.1);
            s.store(scale, &mut stored.0);
            s.store(s.sub(s.splat(0.0), s.mul(s.splat(dmin), m)), &mut stored.1);
        }
        let (chosen, error) = pick(s, levels, x, w, &stored);
        let same = |i: &usize| {
            let (scales, offsets) = &stored[i / LANES];
            scales[i % LANES] == chosen.scale && offsets[i % LANES] == chosen.offset
        };
        let i = (0..2 * LANES).find(same).unwrap_or(0);
        (block.sc[r], block.m[r]) = (whole[i / LANES].0[i % LANES], whole[i / LANES].1[i % LANES]);
        block.error += error;
        assign(s, levels, x, chosen, q);
    }
    block
}

/// The `d` and `dmin` with the smallest error for the integers of `block`: the normal equations of two unknowns.
#[inline(always)]
fn refit<S: Simd>(s: S, shape: Shape, x: &[f32], w: &[f32], block: &Block) -> (f32, f32) {
    let (mut aa, mut ab, mut bb, mut ax, mut bx) = (0.0f32, 0.0f32, 0.0f32, 0.0f32, 0.0f32);
    let runs = x.chunks_exact(shape.run).zip(w.chunks_exact(shape.run)).zip(block.q.chunks_exact(shape.run));
    for (r, ((x, w), q)) in runs.enumerate() {
        let [mut qq, mut q1, mut w1, mut qx, mut x1] = [s.splat(0.0); 5];
        let lanes = x.as_chunks::<LANES>().0.iter().zip(w.as_chunks().0).zip(q.as_chunks().0);
        for ((x, w), q) in lanes {
            let (x, w, q) = (s.load(x), s.load(w), s.load(q));
            let wq = s.mul(w, q);
            qq = s.add(qq, s.mul(wq, q));
            q1 = s.add(q1, wq);
            w1 = s.add(w1, w);
            qx = s.add(qx, s.mul(wq, x));
            x1 = s.add(x1, s.mul(w, x));
        }
        let [qq, q1, w1, qx, x1] = [qq, q1, w1, qx, x1].map(|v| s.sum(v));
        let (sc, m) = (block.sc[r], -block.m[r]);
        aa += sc * sc * qq;
        ab += sc * m * q1;
        bb += m * m * w1;
        ax += sc * qx;
        bx += m * x1;
    }
    let det = aa * bb - ab * ab;
    if det > 1e-6 * aa * bb {
        let (d, dmin) = ((ax * bb - bx * ab) / det, (bx * aa - ax * ab) / det);
        if d > 0.0 && dmin > 0.0 {
            return (d, dmin);
        }
    } else if aa > 0.0 && bb == 0.0 && ax > 0.0 {
        return (ax / aa, block.dmin);
    }
    (block.d, block.dmin)
}

/// See [`crate::formats::Q2K`].
pub(crate) struct Q2K;

impl BlockEncoder for Q2K {
    const FORMAT: Format = Format::Q2_K;

    #[inline(always)]
    fn block<S: Simd>(s: S, x: &[f32], w: &[f32], out: &mut [u8]) {
        let block = encode(s, Shape { run: 16, top: 3.0, scales: 15.0 }, x, w);
        let mut q = [0; LEN];
        to_bytes(&block.q, 0.0, &mut q);
        for r in 0..16 {
            out[r] = block.sc[r] as u8 | (block.m[r] as u8) << 4;
        }
        put_two_bits(&q, &mut out[16..80]);
        put_f16(out, 80, block.d);
        put_f16(out, 82, block.dmin);
    }
}

/// The first 16 bytes of Q4_K and Q5_K blocks.
#[inline(always)]
fn put_head(block: &Block, out: &mut [u8]) {
    put_f16(out, 0, block.d);
    put_f16(out, 2, block.dmin);
    for j in 0..4 {
        let (sc, m) = (block.sc[j] as u8, block.m[j] as u8);
        let (sc4, m4) = (block.sc[j + 4] as u8, block.m[j + 4] as u8);
        out[4 + j] = sc | (sc4 >> 4) << 6;
        out[8 + j] = m | (m4 >> 4) << 6;
        out[12 + j] = sc4 & 15 | m4 << 4;
    }
}

/// See [`crate::formats::Q4K`].
pub(crate) struct Q4K;

impl BlockEncoder for Q4K {
    const FORMAT: Format = Format::Q4_K;

    #[inline(always)]
    fn block<S: Simd>(s: S, x: &[f32], w: &[f32], out: &mut [u8]) {
        let block = encode(s, Shape { run: 32, top: 15.0, scales: 63.0 }, x, w);
        let mut q = [0; LEN];
        to_bytes(&block.q, 0.0, &mut q);
        put_head(&block, out);
        for (q, out) in q.chunks_exact(64).zip(out[16..144].chunks_exact_mut(32)) {
            put_nibbles(q, out);
        }
    }
}

/// See [`crate::formats::Q5K`].
pub(crate) struct Q5K;

impl BlockEncoder for Q5K {
    const FORMAT: Format = Format::Q5_K;

    #[inline(always)]
    fn block<S: Simd>(s: S, x: &[f32], w: &[f32], out: &mut [u8]) {
        let block = encode(s, Shape { run: 32, top: 31.0, scales: 63.0 }, x, w);
        let mut q = [0; LEN];
        to_bytes(&block.q, 0.0, &mut q);
        put_head(&block, out);
        for (j, out) in out[16..48].iter_mut().enumerate() {
            *out = (0..8).fold(0, |byte, k| byte | (q[j + 32 * k] >> 4) << k);
        }
        for (q, out) in q.chunks_exact(64).zip(out[48..176].chunks_exact_mut(32)) {
            put_nibbles(q, out);
        }
    }
}
