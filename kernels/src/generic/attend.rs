//! Attention over a paged KV cache: online softmax (arXiv 1805.02867), page by page.
//!
//! ```text
//! per page of 16 cells, for every query row (a head of a token) of the tile:
//!   s[0..16] = cap(scale * sum_d q[d] * K[d][0..16])       K transposed: two vectors of cells, q[d] broadcast
//!   m' = max(m, max s);   p = exp(s - m');   a = exp(m - m')
//!   l = l a + sum p;      o[d..d+8] = o[d..d+8] a + sum_c p[c] V[c][d..d+8]
//! ```
//! A tile is up to 8 tokens of one sequence times the query heads that share a KV head, so a page is read and converted
//! once for all of them. Rows go through the two products up to four at a time: 8 accumulators, and each K or V vector
//! serves four rows. A row sees its pages in the sequence's order whatever tile it is in, and a page it does not see leaves
//! its state as it was: results do not depend on batch mates or threads.
//!
//! Pages are checked as a whole first (least and greatest position); only a page that is partly visible looks at its
//! cells. Cells nobody in the tile sees are zeroed in the scratch copy, so what an evicted cell holds never matters.

use cchaha_plan::PAGE_CELLS;

use crate::attention::{Attend, Split, Sums, TILE};
use crate::kv::{Element, Values};
use crate::math::{exp, load_at, map, tanh};
use crate::simd::{LANES, Simd};

/// Query rows that go through a page together, at most.
const ROWS: usize = 4;

/// Values scratch must have.
pub(crate) fn scratch_len(n_heads: usize, n_kv_heads: usize, head_dim: usize) -> usize {
    let rows = TILE * (n_heads / n_kv_heads);
    2 * PAGE_CELLS * head_dim + rows * PAGE_CELLS
}

/// The sums of one split.
#[inline(always)]
pub(crate) fn attend<S: Simd>(s: S, a: &Attend<'_>, split: &Split<'_>, scratch: &mut [f32], sums: &mut Sums<'_>) {
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
    let (group, head, tokens) = (a.group(), split.head, &split.tokens);
    let rows = tokens.len() * group;
    let block_len = PAGE_CELLS * head_dim;

    let (k32, rest) = scratch.split_at_mut(block_len);
    let (v32, rest) = rest.split_at_mut(block_len);
    let scores = &mut rest[..rows * PAGE_CELLS];
    sums.clear();
    for &page in split.pages {
        let page = page as usize;
        let mut masks = [0u16; TILE];
        let mut any = 0;
        for (mask, t) in masks.iter_mut().zip(tokens.clone()) {
            *mask = a.visible(t, head, page);
            any |= *mask;
        }
        if any == 0 {
            continue;
        }
        let block = (page * n_kv_heads + head) * block_len;
        let (k, v) = (&k[block..][..block_len], &v[block..][..block_len]);
        widen(s, k, k32);
        widen(s, v, v32);
        if any != u16::MAX {
            for slot in (0..PAGE_CELLS).filter(|slot| any >> slot & 1 == 0) {
                k32.iter_mut().skip(slot).step_by(PAGE_CELLS).for_each(|x| *x = 0.0);
                v32[slot * head_dim..][..head_dim].fill(0.0);
            }
        }
        let tile = PageTile { head_dim, group, first: tokens.start, start: head * group * head_dim };
        let mut row = 0;
        while row < rows {
            let n = ROWS.min(rows - row);
            match n {
                1 => tile.scores::<S, 1>(s, a, k32, row, scores),
                2 => tile.scores::<S, 2>(s, a, k32, row, scores),
                3 => tile.scores::<S, 3>(s, a, k32, row, scores),
                _ => tile.scores::<S, ROWS>(s, a, k32, row, scores),
            }
            row += n;
        }
        for row in 0..rows {
            let mask = masks[row / group];
            let p = scores[row * PAGE_CELLS..][..PAGE_CELLS].as_chunks_mut::<LANES>().0;
            let Some(shrink) = soften(s, mask, p, &mut sums.states[row]) else {
                p.as_flattened_mut().fill(0.0);
                continue;
            };
            if shrink != 1.0 {
                let o = &mut sums.out[row * head_dim..][..head_dim];
                map!(s, o, |_, o| s.mul(o, s.splat(shrink)));
            }
        }
        for (i, &mask) in masks[..tokens.len()].iter().enumerate() {
            if mask == 0 {
                continue;
            }
            let o = &mut sums.out[i * group * head_dim..][..group * head_dim];
            let p = &scores[i * group * PAGE_CELLS..][..group * PAGE_CELLS];
            let mut h = 0;
            while h < group {
                let n = ROWS.min(group - h);
                let (p, o) = (&p[h * PAGE_CELLS..], &mut o[h * head_dim..]);
                match n {
                    1 => values::<S, 1>(s, p, v32, head_dim, o),
                    2 => values::<S, 2>(s, p, v32, head_dim, o),
                    3 => values::<S, 3>(s, p, v32, head_dim, o),
                    _ => values::<S, ROWS>(s, p, v32, head_dim, o),
                }
                h += n;
            }
        }
    }
}

struct PageTile {
    head_dim: usize,
    group: usize,
    first: usize,
    /// Column of the group's first head.
    start: usize,
}

impl PageTile {
    /// Scaled and capped scores of `R` rows against the page's 16 cells.
    #[inline(always)]
    fn scores<S: Simd, const R: usize>(
        &self,
        s: S,
        a: &Attend<'_>,
        k: &[f32],
        row: usize,
        scores: &mut [f32],
    ) {
        let width = a.n_heads * self.head_dim;
        let q: [&[f32]; R] = std::array::from_fn(|r| {
            let (token, head) = ((row + r) / self.group, (row + r) % self.group);
            &a.q[(self.first + token) * width + self.start + head * self.head_dim..][..self.head_dim]
        });
        let sums = dots::<S, f32, R>(s, q, k);
        let out = scores[row * PAGE_CELLS..][..R * PAGE_CELLS].as_chunks_mut::<LANES>().0;
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
}

/// `sum_d q[r][d] * k[d][0..16]`, in two vectors.
#[inline(always)]
pub(super) fn dots<S: Simd, E: Element, const R: usize>(s: S, q: [&[f32]; R], k: &[E]) -> [[S::V; 2]; R] {
    let mut sums = [[s.splat(0.0); 2]; R];
    for (d, k) in k.as_chunks::<PAGE_CELLS>().0.iter().enumerate().take(q[0].len()) {
        let cells = k.as_chunks::<LANES>().0;
        let (low, high) = (E::load(s, &cells[0]), E::load(s, &cells[1]));
        for r in 0..R {
            let q = s.splat(q[r][d]);
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

/// `o[r] += sum_c p[r][c] * v[c]` for `R` neighbouring rows.
#[inline(always)]
fn values<S: Simd, const R: usize>(s: S, p: &[f32], v: &[f32], head_dim: usize, o: &mut [f32]) {
    let p = p.as_chunks::<PAGE_CELLS>().0;
    let mut d = 0;
    while d + 2 * LANES <= head_dim {
        // Loops and no closures, which would not be inlined; see `math::map`.
        let mut sums = [[s.splat(0.0); 2]; R];
        for r in 0..R {
            sums[r] = [load_at(s, o, r * head_dim + d), load_at(s, o, r * head_dim + d + LANES)];
        }
        for c in 0..PAGE_CELLS {
            let v = v[c * head_dim + d..][..2 * LANES].as_chunks::<LANES>().0;
            let (low, high) = (s.load(&v[0]), s.load(&v[1]));
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
        d += 2 * LANES;
    }
    for r in 0..R {
        for d in d..head_dim {
            let o = &mut o[r * head_dim + d];
            *o = (0..PAGE_CELLS).fold(*o, |o, c| o + p[r][c] * v[c * head_dim + d]);
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
