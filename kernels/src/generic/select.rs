//! Page selection by key bounds (Quest, arXiv 2406.10774).

use cchaha_plan::PAGE_CELLS;

use super::attend::Attend;

/// Chooses pages for one token: `bits` is `[n_kv_heads, words]`. `a` carries the mask without selection.
pub(crate) fn select(
    a: &Attend<'_>,
    token: usize,
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
    let words = bits.len() / n_kv_heads;
    for head in 0..n_kv_heads {
        found.clear();
        for (order, &page) in sequence.iter().enumerate() {
            let causal = a.batch.cells.pos[page as usize * PAGE_CELLS..][..PAGE_CELLS].iter().enumerate();
            let causal = causal.fold(0u16, |m, (i, pos)| m | u16::from((0..=at).contains(pos)) << i);
            if causal & !a.visible(token, head, page as usize) == 0 {
                continue;
            }
            let extremes = &bounds.extremes[(page as usize * n_kv_heads + head) * head_dim..][..head_dim];
            let queries = &a.q[(token * n_kv_heads + head) * group * head_dim..][..group * head_dim];
            let score = |q: &[f32]| -> f32 {
                q.iter().zip(extremes).map(|(q, [least, most])| (q * least).max(q * most)).sum()
            };
            let best = queries.chunks_exact(head_dim).map(score).fold(f32::NEG_INFINITY, f32::max);
            // Adding 0 makes the two zeros equal.
            found.push((best + 0.0, order as u32));
        }
        let by_bound = |x: &(f32, u32), y: &(f32, u32)| y.0.total_cmp(&x.0).then(x.1.cmp(&y.1));
        if (1..found.len()).contains(&pages) {
            found.select_nth_unstable_by(pages - 1, by_bound);
        }
        for &(_, order) in found.iter().take(pages) {
            let page = sequence[order as usize] as usize;
            bits[head * words + page / 64] |= 1 << (page % 64);
        }
    }
}
