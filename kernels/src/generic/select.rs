//! Page selection by ranges of keys, one KV head of one token at a time.
//!
//! Quest (arXiv 2406.10774) takes the greatest product of the query with any point of a page's range, a bound that no key comes near in all dimensions at
//! once and that flatters pages whose keys differ. With half of the range's width pages are chosen better: 0.706 bits per byte where the whole has 0.715
//! (SmolLM2, 5 files of 4096 tokens in 512 cells; a quarter 0.713, 0.65 of it 0.706, half of it about the mean of the keys instead of the middle 0.703).
//!
//! The bound is linear in the ends of a range, so the bounds of 16 pages are the scores of 16 keys of twice the dims, whose queries are
//! `q / 2 -+ |q| / 4`.
//!
//! Query heads that share keys choose by their largest product. Relative to each head's own best page (0.733, with the whole range) and by the sum of
//! each head's softmax over pages (0.730) they choose worse.

use cchaha_plan::{PAGE_CELLS, PAGE_SPREAD};

use super::attend::{ROWS, dots, pack, rows, together};
use crate::attention::Attend;
use crate::kv::{Element, Values};
use crate::scratch::Scratch;
use crate::simd::{LANES, Simd};

/// Floats of [`Scratch::attention`] it takes.
pub(crate) fn scratch_len(n_heads: usize, n_kv_heads: usize, head_dim: usize) -> usize {
    4 * head_dim * (n_heads / n_kv_heads)
}

/// Chooses pages for one token and KV head: `bits` is `[words]`. `a` carries the mask without selection.
#[inline(always)]
pub(crate) fn select<S: Simd>(
    s: S,
    a: &Attend<'_>,
    at: (usize, usize),
    pages: usize,
    scratch: &mut Scratch,
    bits: &mut [u64],
) {
    match &a.cache.values {
        Values::F16 { ranges, .. } => choose(s, a, at, pages, ranges, scratch, bits),
        Values::F32 { ranges, .. } => choose(s, a, at, pages, ranges, scratch, bits),
    }
}

#[inline(always)]
fn choose<S: Simd, E: Element>(
    s: S,
    a: &Attend<'_>,
    (token, head): (usize, usize),
    pages: usize,
    ranges: &[E],
    scratch: &mut Scratch,
    bits: &mut [u64],
) {
    let head_dim = a.cache.spec.head_dim;
    let queries = &a.q[token * a.n_heads * head_dim..][head * a.width()..][..a.width()];
    let (factors, packed) = scratch.attention[..4 * a.width()].split_at_mut(2 * a.width());
    factors_of(queries, head_dim, factors);
    pack(a.group(), 2 * head_dim, |head| &factors[2 * head * head_dim..][..2 * head_dim], packed);
    let sequence = a.batch.sequences[a.batch.sequence[token] as usize];
    let at = a.batch.positions[token * a.axes];
    let found = &mut scratch.pages;
    found.clear();
    let (mut held, mut bounds) = (usize::MAX, [[0.0; LANES]; 2]);
    for (order, &page) in sequence.iter().enumerate() {
        let page = page as usize;
        let span = a.spans[page];
        let causal = if span.full && span.greatest <= at {
            u16::MAX
        } else {
            let cells = a.batch.cells.pos[page * PAGE_CELLS..][..PAGE_CELLS].iter().enumerate();
            cells.fold(0u16, |m, (i, pos)| m | u16::from((0..=at).contains(pos)) << i)
        };
        if causal & !a.visible(token, head, page) == 0 {
            continue;
        }
        if held != page / PAGE_CELLS {
            held = page / PAGE_CELLS;
            bounds = bounds_of(s, packed, 2 * head_dim, &ranges[a.cache.ranges_of(head, page)]);
        }
        // Adding 0 makes the two zeros equal.
        found.push((bounds.as_flattened()[page % PAGE_CELLS] + 0.0, order as u32));
    }
    let by_bound = |x: &(f32, u32), y: &(f32, u32)| y.0.total_cmp(&x.0).then(x.1.cmp(&y.1));
    if (1..found.len()).contains(&pages) {
        found.select_nth_unstable_by(pages - 1, by_bound);
    }
    bits.fill(0);
    for &(_, order) in found.iter().take(pages) {
        let page = sequence[order as usize] as usize;
        bits[page / 64] |= 1 << (page % 64);
    }
}

/// What the ends of a range are multiplied by: `q * middle + PAGE_SPREAD * |q| * radius` is linear in them.
fn factors_of(queries: &[f32], head_dim: usize, factors: &mut [f32]) {
    for (q, factors) in queries.chunks_exact(head_dim).zip(factors.chunks_exact_mut(2 * head_dim)) {
        let (least, most) = factors.split_at_mut(head_dim);
        for (q, (least, most)) in q.iter().zip(least.iter_mut().zip(most)) {
            let (q, spread) = (0.5 * q, 0.5 * PAGE_SPREAD * q.abs());
            (*least, *most) = (q - spread, q + spread);
        }
    }
}

/// The largest bound of any query head, for 16 pages.
#[inline(always)]
fn bounds_of<S: Simd, E: Element>(s: S, factors: &[f32], dims: usize, ranges: &[E]) -> [[f32; LANES]; 2] {
    let mut largest = [s.splat(f32::NEG_INFINITY); 2];
    for factors in factors.chunks(together(factors.len() / dims) * dims) {
        largest = rows!(factors.len() / dims, largest_of(s, factors, ranges, largest));
    }
    let mut out = [[0.0; LANES]; 2];
    s.store(largest[0], &mut out[0]);
    s.store(largest[1], &mut out[1]);
    out
}

#[inline(always)]
fn largest_of<S: Simd, E: Element, const R: usize>(
    s: S,
    factors: &[f32],
    ranges: &[E],
    mut largest: [S::V; 2],
) -> [S::V; 2] {
    for [low, high] in dots::<S, E, R>(s, factors, ranges) {
        largest = [s.max(low, largest[0]), s.max(high, largest[1])];
    }
    largest
}
