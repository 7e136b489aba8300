//! Page selection by ranges of keys, one KV head of one token at a time.
//!
//! Quest (arXiv 2406.10774) takes the greatest product of the query with any point of a page's range, a bound that no key comes near in all dimensions at
//! once and that flatters pages whose keys differ. With half of the range's width pages are chosen better: 0.706 bits per byte where the whole has 0.715
//! (SmolLM2, 5 files of 4096 tokens in 512 cells; a quarter 0.713, 0.65 of it 0.706, half of it about the mean of the keys instead of the middle 0.703).
//!
//! A page's ranges are read once for four query heads; the sums of a product are eight lanes, added up at the end. Reading is what it costs: where the ranges of
//! a head stand together, behind 8000 tokens, Qwen2.5-Coder-0.5B decodes in 1024 cells 1.13 times as fast as where those of a page do (2-core AMD EPYC
//! Zen 4, 2026-11).
//!
//! Query heads that share keys choose by their largest product. Relative to each head's own best page (0.733, with the whole range) and by the sum of
//! each head's softmax over pages (0.730) they choose worse.

use cchaha_plan::PAGE_CELLS;

use super::attend::Attend;
use crate::simd::{LANES, Simd};

/// Query heads that meet a page together.
const QUERIES: usize = 4;

/// The largest over `queries` of `sum_d max(q_d * from_d, q_d * to_d)`.
#[inline(always)]
fn bound<S: Simd>(s: S, queries: [&[f32]; QUERIES], from: &[f32], to: &[f32]) -> f32 {
    let chunks = queries.map(|q| q.as_chunks::<LANES>());
    let ((from, from_tail), (to, to_tail)) = (from.as_chunks::<LANES>(), to.as_chunks::<LANES>());
    let mut sums = [s.splat(0.0); QUERIES];
    let mut add = |q: [S::V; QUERIES], from: S::V, to: S::V| {
        for (sum, q) in sums.iter_mut().zip(q) {
            *sum = s.add(*sum, s.max(s.mul(q, from), s.mul(q, to)));
        }
    };
    for (i, (from, to)) in from.iter().zip(to).enumerate() {
        add(chunks.map(|(q, _)| s.load(&q[i])), s.load(from), s.load(to));
    }
    if !from_tail.is_empty() {
        add(chunks.map(|(_, tail)| s.load_tail(tail)), s.load_tail(from_tail), s.load_tail(to_tail));
    }
    sums.into_iter().map(|sum| s.sum(sum)).fold(f32::NEG_INFINITY, f32::max)
}

/// Chooses pages for one token and KV head: `bits` is `[words]`. `a` carries the mask without selection.
#[inline(always)]
pub(crate) fn select<S: Simd>(
    s: S,
    a: &Attend<'_>,
    (token, head): (usize, usize),
    pages: usize,
    found: &mut Vec<(f32, u32)>,
    bits: &mut [u64],
) {
    bits.fill(0);
    let (n_kv_heads, head_dim) = (a.cache.spec.n_kv_heads, a.cache.spec.head_dim);
    let Some(bounds) = &a.cache.bounds else { return };
    let group = a.n_heads / n_kv_heads;
    let sequence = a.batch.sequences[a.batch.sequence[token] as usize];
    let at = a.batch.positions[token * a.axes];
    let queries = &a.q[(token * n_kv_heads + head) * group * head_dim..][..group * head_dim];
    found.clear();
    for (order, &page) in sequence.iter().enumerate() {
        let span = a.spans[page as usize];
        let causal = if span.full && span.greatest <= at {
            u16::MAX
        } else {
            let cells = a.batch.cells.pos[page as usize * PAGE_CELLS..][..PAGE_CELLS].iter().enumerate();
            cells.fold(0u16, |m, (i, pos)| m | u16::from((0..=at).contains(pos)) << i)
        };
        if causal & !a.visible(token, head, page as usize) == 0 {
            continue;
        }
        let ranges = bounds.at(a.cache.spec, head, page as usize);
        let (from, to) = bounds.ranges[ranges].split_at(head_dim);
        let bounds = (0..group).step_by(QUERIES).map(|first| {
            // The last one again where there are no four.
            let query = |i: usize| &queries[(first + i).min(group - 1) * head_dim..][..head_dim];
            bound(s, std::array::from_fn(query), from, to)
        });
        // Adding 0 makes the two zeros equal.
        found.push((bounds.fold(f32::NEG_INFINITY, f32::max) + 0.0, order as u32));
    }
    let by_bound = |x: &(f32, u32), y: &(f32, u32)| y.0.total_cmp(&x.0).then(x.1.cmp(&y.1));
    if (1..found.len()).contains(&pages) {
        found.select_nth_unstable_by(pages - 1, by_bound);
    }
    for &(_, order) in found.iter().take(pages) {
        let page = sequence[order as usize] as usize;
        bits[page / 64] |= 1 << (page % 64);
    }
}
