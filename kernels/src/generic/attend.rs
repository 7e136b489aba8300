//! Attention over a paged KV cache: online softmax (arXiv 1805.02867), page by page.
//!
//! ```text
//! per page of 16 cells, for every query row (a head of a token) of the tile:
//!   s[0..16] = cap(scale * sum_d q[d] * K[d][0..16])       K transposed: two vectors of cells, q[d] broadcast
//!   m' = max(m, max s);   p = exp(s - m');   a = exp(m - m')
//!   l = l a + sum p;      o[d..d+8] = o[d..d+8] a + sum_c p[c] V[c][d..d+8]
//! ```
//! A tile is up to 16 tokens of one sequence times the query heads that share a KV head, so a page is read and converted
//! once for all of them; one token reads it as it is. Rows go through the two products up to six at a time: 12 accumulators, and each
//! K or V vector serves six rows. A row sees its pages in the sequence's order whatever tile it is in, and a page it does not see
//! leaves its state as it was: results do not depend on batch mates or threads.
//!
//! SmolLM2-135M (3 heads to a KV head, head_dim 64), a prompt of 4096 tokens, tokens/s of the whole model with two threads in one run (AMD EPYC Zen 4, AVX2,
//! 2026-11): 218 where a closure, which is not inlined, gathered the accumulators; 280 with loops; 333 with six rows across tokens and queries packed
//! side by side. Six rows whose queries lie where they are lost: 204 of 254 at 6144 tokens, for pointers and checks left the registers.
//!
//! Pages are checked as a whole first (least and greatest position); only a page that is partly visible looks at its
//! cells. Values of cells that nobody in the tile sees are zeroed in the scratch copy or not read, so what an evicted cell holds never
//! matters.

use cchaha_plan::PAGE_CELLS;

use crate::attention::{Attend, Split, Sums, TILE};
use crate::kv::{Element, Values};
use crate::math::{exp, map, tanh};
use crate::simd::{LANES, Simd};

/// Query rows that go through a page together, at most.
pub(super) const ROWS: usize = 6;

/// Values scratch must have.
pub(crate) fn scratch_len(n_heads: usize, n_kv_heads: usize, head_dim: usize) -> usize {
    let rows = TILE * (n_heads / n_kv_heads);
    2 * PAGE_CELLS * head_dim + rows * (PAGE_CELLS + head_dim)
}

/// How many of `rows` go together, so that none is left alone.
pub(super) fn together(rows: usize) -> usize {
    rows.div_ceil(rows.div_ceil(ROWS))
}

/// Rows of `dims` numbers for [`dots`], those that go together side by side: `[rows / together][dims][together]`.
pub(super) fn pack<'r>(rows: usize, dims: usize, row: impl Fn(usize) -> &'r [f32], to: &mut [f32]) {
    let n = together(rows);
    for (i, to) in to[..rows * dims].chunks_mut(n * dims).enumerate() {
        let width = to.len() / dims;
        for r in 0..width {
            for (&x, to) in row(i * n + r).iter().zip(to.iter_mut().skip(r).step_by(width)) {
                *to = x;
            }
        }
    }
}

/// The sums of one split.
#[inline(always)]
pub(crate) fn attend<S: Simd>(
    s: S,
    a: &Attend<'_>,
    split: &Split<'_>,
    scratch: &mut [f32],
    sums: &mut Sums<'_>,
) {
    match &a.cache.values {
        Values::F16 { k, v, .. } => run(s, a, k, v, split, scratch, sums),
        Values::F32 { k, v, .. } => run(s, a, k, v, split, scratch, sums),
    }
}

#[inline(always)]
fn run<S: Simd, E: Element>(
    s: S,
    a: &Attend<'_>,
    k: &[E],
    v: &[E],
    split: &Split<'_>,
    scratch: &mut [f32],
    sums: &mut Sums<'_>,
) {
    let (n_kv_heads, head_dim) = (a.cache.spec.n_kv_heads, a.cache.spec.head_dim);
    let block_len = PAGE_CELLS * head_dim;
    let (k32, rest) = scratch.split_at_mut(block_len);
    let (v32, rest) = rest.split_at_mut(block_len);
    let (group, n_rows) = (a.group(), split.tokens.len() * a.group());
    let (q, scores) = rest.split_at_mut(n_rows * head_dim);
    let query = |row: usize| {
        let head = (split.tokens.start + row / group) * a.n_heads + split.head * group + row % group;
        &a.q[head * head_dim..][..head_dim]
    };
    pack(n_rows, head_dim, query, q);
    sums.clear();
    for &page in split.pages {
        let page = page as usize;
        let mut masks = [0u16; TILE];
        let mut any = 0;
        for (mask, t) in masks.iter_mut().zip(split.tokens.clone()) {
            *mask = a.visible(t, split.head, page);
            any |= *mask;
        }
        if any == 0 {
            continue;
        }
        let block = (page * n_kv_heads + split.head) * block_len;
        let (k, v) = (&k[block..][..block_len], &v[block..][..block_len]);
        let rows = Rows { a, q, masks: &masks };
        if split.tokens.len() == 1 {
            rows.page(s, k, v, any, scores, sums);
            continue;
        }
        widen(s, k, k32);
        widen(s, v, v32);
        for slot in (0..PAGE_CELLS).filter(|slot| any >> slot & 1 == 0) {
            v32[slot * head_dim..][..head_dim].fill(0.0);
        }
        rows.page(s, &*k32, &*v32, u16::MAX, scores, sums);
    }
}

/// The query heads of a split's tokens: as many rows.
struct Rows<'a> {
    a: &'a Attend<'a>,
    /// Packed.
    q: &'a [f32],
    /// Cells of the page that each token sees.
    masks: &'a [u16; TILE],
}

/// `$f::<S, E, R>($arg, ...)` with `$n` for `R`.
macro_rules! rows {
    ($n:expr, $f:ident($($arg:expr),*)) => {
        match $n {
            1 => $f::<S, E, 1>($($arg),*),
            2 => $f::<S, E, 2>($($arg),*),
            3 => $f::<S, E, 3>($($arg),*),
            4 => $f::<S, E, 4>($($arg),*),
            5 => $f::<S, E, 5>($($arg),*),
            _ => $f::<S, E, ROWS>($($arg),*),
        }
    };
}

pub(super) use rows;

impl Rows<'_> {
    /// Adds a page, of which only the cells in `cells` are read.
    #[inline(always)]
    fn page<S: Simd, E: Element>(
        &self,
        s: S,
        k: &[E],
        v: &[E],
        cells: u16,
        scores: &mut [f32],
        sums: &mut Sums<'_>,
    ) {
        let (group, head_dim) = (self.a.group(), self.a.cache.spec.head_dim);
        let rows = self.q.len() / head_dim;
        let n = together(rows);
        let scores = &mut scores[..rows * PAGE_CELLS];
        for (q, scores) in self.q.chunks(n * head_dim).zip(scores.chunks_mut(n * PAGE_CELLS)) {
            rows!(q.len() / head_dim, scores_of(s, self.a, q, k, scores));
        }
        for (row, p) in scores.chunks_exact_mut(PAGE_CELLS).enumerate() {
            let p = p.as_chunks_mut::<LANES>().0;
            let Some(shrink) = soften(s, self.masks[row / group], p, &mut sums.states[row]) else {
                p.as_flattened_mut().fill(0.0);
                continue;
            };
            if shrink != 1.0 {
                let o = &mut sums.out[row * head_dim..][..head_dim];
                map!(s, o, |_, o| s.mul(o, s.splat(shrink)));
            }
        }
        for (p, o) in scores.chunks(n * PAGE_CELLS).zip(sums.out.chunks_mut(n * head_dim)) {
            rows!(p.len() / PAGE_CELLS, values(s, p, v, cells, head_dim, o));
        }
    }
}

/// Scaled and capped scores of `R` rows against a page's 16 cells.
#[inline(always)]
fn scores_of<S: Simd, E: Element, const R: usize>(
    s: S,
    a: &Attend<'_>,
    q: &[f32],
    k: &[E],
    scores: &mut [f32],
) {
    let sums = dots::<S, E, R>(s, q, k);
    let out = scores.as_chunks_mut::<LANES>().0;
    for r in 0..R {
        for half in 0..2 {
            let mut x = s.mul(sums[r][half], s.splat(a.scale));
            if let Some(cap) = a.softcap {
                x = s.mul(s.splat(cap), tanh(s, s.div(x, s.splat(cap))));
            }
            s.store(x, &mut out[2 * r + half]);
        }
    }
}

/// `sum_d q[d][r] * k[d][0..16]`, in two vectors.
#[inline(always)]
pub(super) fn dots<S: Simd, E: Element, const R: usize>(s: S, q: &[f32], k: &[E]) -> [[S::V; 2]; R] {
    let mut sums = [[s.splat(0.0); 2]; R];
    for (q, k) in q.as_chunks::<R>().0.iter().zip(k.as_chunks::<PAGE_CELLS>().0) {
        let cells = k.as_chunks::<LANES>().0;
        let (low, high) = (E::load(s, &cells[0]), E::load(s, &cells[1]));
        for r in 0..R {
            let q = s.splat(q[r]);
            sums[r] = [s.fma(q, low, sums[r][0]), s.fma(q, high, sums[r][1])];
        }
    }
    sums
}

/// Scores become weights; returns the factor on what was summed before, or `None` where the row sees nothing.
#[inline(always)]
fn soften<S: Simd>(s: S, mask: u16, p: &mut [[f32; LANES]], state: &mut [f32; 2]) -> Option<f32> {
    if mask == 0 {
        return None;
    }
    if mask != u16::MAX {
        for (i, x) in p.as_flattened_mut().iter_mut().enumerate() {
            if mask >> i & 1 == 0 {
                *x = f32::NEG_INFINITY;
            }
        }
    }
    let (low, high) = (s.load(&p[0]), s.load(&p[1]));
    // A NaN score may be lost here, not below: its weight is NaN, and so are the sum and the output.
    let top = state[0].max(s.largest(s.max(low, high)));
    if top == f32::NEG_INFINITY {
        return None;
    }
    let (low, high) = (exp(s, s.sub(low, s.splat(top))), exp(s, s.sub(high, s.splat(top))));
    s.store(low, &mut p[0]);
    s.store(high, &mut p[1]);
    let shrink = if top == state[0] { 1.0 } else { (state[0] - top).exp() };
    *state = [top, state[1] * shrink + s.sum(s.add(low, high))];
    Some(shrink)
}

/// `o[r] += sum_c p[r][c] * v[c]` over `cells`, for `R` neighbouring rows.
#[inline(always)]
fn values<S: Simd, E: Element, const R: usize>(
    s: S,
    p: &[f32],
    v: &[E],
    cells: u16,
    head_dim: usize,
    o: &mut [f32],
) {
    let p: &[[f32; PAGE_CELLS]; R] = p.as_chunks().0.first_chunk().expect("invariant: as many rows");
    for d in (0..head_dim / (2 * LANES)).map(|i| 2 * LANES * i) {
        // Loops and no closures, which would not be inlined; see `math::map`.
        let mut sums = [[s.splat(0.0); 2]; R];
        for r in 0..R {
            let [low, high] = two(&o[r * head_dim + d..]);
            sums[r] = [s.load(low), s.load(high)];
        }
        for c in 0..PAGE_CELLS {
            if cells >> c & 1 == 0 {
                continue;
            }
            let [low, high] = two(&v[c * head_dim + d..]);
            let (low, high) = (E::load(s, low), E::load(s, high));
            for r in 0..R {
                let p = s.splat(p[r][c]);
                sums[r] = [s.fma(p, low, sums[r][0]), s.fma(p, high, sums[r][1])];
            }
        }
        for r in 0..R {
            let o = o[r * head_dim + d..][..2 * LANES].as_chunks_mut::<LANES>().0;
            s.store(sums[r][0], &mut o[0]);
            s.store(sums[r][1], &mut o[1]);
        }
    }
    if !head_dim.is_multiple_of(2 * LANES) {
        last_values(p, v, cells, head_dim, o);
    }
}

/// The first two vectors.
#[inline(always)]
fn two<E>(x: &[E]) -> &[[E; LANES]; 2] {
    x.as_chunks().0.first_chunk().expect("invariant: there are two")
}

/// The same for the dims that are left.
#[inline(never)]
fn last_values<E: Element>(p: &[[f32; PAGE_CELLS]], v: &[E], cells: u16, head_dim: usize, o: &mut [f32]) {
    for (p, o) in p.iter().zip(o.chunks_exact_mut(head_dim)) {
        for (d, o) in o.iter_mut().enumerate().skip(head_dim - head_dim % (2 * LANES)) {
            for c in (0..PAGE_CELLS).filter(|c| cells >> c & 1 == 1) {
                *o += p[c] * v[c * head_dim + d].to_f32();
            }
        }
    }
}

#[inline(always)]
fn widen<S: Simd, E: Element>(s: S, from: &[E], to: &mut [f32]) {
    let to = to.as_chunks_mut::<LANES>().0;
    for (from, to) in from.as_chunks::<LANES>().0.iter().zip(to) {
        s.store(E::load(s, from), to);
    }
}
