//! Page selection by ranges of keys, one KV head of one token at a time.
//!
//! Quest (arXiv 2406.10774) takes the greatest product of the query with any point of a page's range, a bound that no key comes near in all dimensions at
//! once and that flatters pages whose keys differ. With half of the range's width pages are chosen better: 0.706 bits per byte where the whole has 0.715
//! (SmolLM2, 5 files of 4096 tokens in 512 cells; a quarter 0.713, 0.65 of it 0.706, half of it about the mean of the keys instead of the middle 0.703).
//!
//! The products of a page are sums over dimensions in eight lanes, which the compiler turns into vectors on every target; in
//! one long chain of additions they would cost as much as the attention they save.
//!
//! Query heads that share keys choose by their largest product. Relative to each head's own best page (0.733, with the whole range) and by the sum of
//! each head's softmax over pages (0.730) they choose worse.

use cchaha_plan::PAGE_CELLS;

use super::attend::Attend;
use crate::simd::LANES;

/// `sum_d max(q_d * from_d, q_d * to_d)`.
#[inline]
fn bound(q: &[f32], ranges: &[[f32; 2]]) -> f32 {
    // Not f32::max, whose rule for NaN costs vector instructions.
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let (chunks, tail) = q.as_chunks::<LANES>();
    let (ranges, rest) = ranges.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for (q, ranges) in chunks.iter().zip(ranges) {
        for lane in 0..LANES {
            let [from, to] = ranges[lane];
            sums[lane] += larger(q[lane] * from, q[lane] * to);
        }
    }
    let tail: f32 = tail.iter().zip(rest).map(|(q, [from, to])| larger(q * from, q * to)).sum();
    sums.iter().sum::<f32>() + tail
}

/// Chooses pages for one token and KV head: `bits` is `[words]`. `a` carries the mask without selection.
pub(crate) fn select(
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
        let ranges = &bounds.ranges[(page as usize * n_kv_heads + head) * head_dim..][..head_dim];
        let bounds = queries.chunks_exact(head_dim).map(|q| bound(q, ranges));
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
