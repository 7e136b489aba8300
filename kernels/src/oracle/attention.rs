//! The KV cache, page selection and attention.

use cchaha_plan::{Batch, EMPTY, KvSpec, MaskRule, PAGE_CELLS, PAGE_SPREAD, Result};

use super::matrix::Matrix;
use super::{nans, rows};

/// Keys and values of one layer, `[c, g * d]` each, unrounded.
pub(super) struct KvCache {
    spec: KvSpec,
    k: Vec<f64>,
    v: Vec<f64>,
}

/// `pages[t][g]`: the pages chosen for a token and a KV head.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pages: Vec<Vec<Vec<u32>>>,
}

/// The queries of the last tokens, `[16, h * d]`, by position.
#[derive(Clone, Debug)]
pub(super) struct Queries {
    pub(super) rows: Vec<Vec<f64>>,
    pub(super) n_heads: usize,
    pub(super) scale: f64,
}

impl KvCache {
    pub(super) fn new(spec: KvSpec, cells: usize) -> Result<KvCache> {
        let values = cells.saturating_mul(spec.n_kv_heads * spec.head_dim);
        Ok(KvCache { spec, k: nans(values)?, v: nans(values)? })
    }

    pub(super) fn store(&mut self, cell: usize, k: &[f64], v: &[f64]) {
        self.k[cell * k.len()..][..k.len()].copy_from_slice(k);
        self.v[cell * v.len()..][..v.len()].copy_from_slice(v);
    }

    /// The `d` values of one cell and KV head.
    fn head<'a>(&self, values: &'a [f64], cell: usize, g: usize) -> &'a [f64] {
        let KvSpec { n_kv_heads, head_dim } = self.spec;
        &values[(cell * n_kv_heads + g) * head_dim..][..head_dim]
    }

    /// [`cchaha_plan::Runner::fold`].
    pub(super) fn fold(&mut self, queries: &Queries, pages: &[u32], old: usize, sinks: usize, keep: usize) {
        let KvSpec { n_kv_heads, head_dim } = self.spec;
        let cells: Vec<usize> = pages.iter().flat_map(|&page| page_cells(page)).collect();
        let seen = &cells[..cells.len() - PAGE_CELLS];
        let group = queries.n_heads / n_kv_heads;
        for g in 0..n_kv_heads {
            let mut weights = vec![0.0; old * PAGE_CELLS];
            for row in &queries.rows {
                for q in row.chunks_exact(head_dim).skip(g * group).take(group) {
                    let score = |&cell: &usize| queries.scale * rows::dot(q, self.head(&self.k, cell, g));
                    let attention = rows::softmax(&seen.iter().map(score).collect::<Vec<_>>());
                    weights.iter_mut().zip(attention).for_each(|(weight, p)| *weight += p);
                }
            }
            let chosen = rows::top_k(&weights[sinks..], keep - sinks).into_iter().map(|i| sinks + i);
            let mut kept: Vec<usize> = (0..sinks).chain(chosen).collect();
            kept.sort_unstable();
            let at = |i: usize| (cells[i] * n_kv_heads + g) * head_dim;
            for (to, from) in kept.into_iter().enumerate() {
                let from = at(from)..at(from) + head_dim;
                self.k.copy_within(from.clone(), at(to));
                self.v.copy_within(from, at(to));
            }
        }
    }

    /// `max over the group's heads of sum_d (q_d * middle_d + PAGE_SPREAD * |q_d| * radius_d)` over the written keys.
    /// `q`: one token's row, `[h * d]`.
    fn bound(&self, q: &[f64], n_heads: usize, g: usize, page: u32, batch: &Batch<'_>) -> f64 {
        let written = page_cells(page).filter(|&cell| batch.cells.pos[cell] != EMPTY);
        let keys: Vec<&[f64]> = written.map(|cell| self.head(&self.k, cell, g)).collect();
        let extreme = |d: usize, pick: fn(f64, f64) -> f64| keys.iter().map(|key| key[d]).reduce(pick);
        let group = n_heads / self.spec.n_kv_heads;
        let heads = q.chunks_exact(self.spec.head_dim).skip(g * group).take(group);
        heads
            .map(|q| {
                let terms = q.iter().enumerate().map(|(d, &q)| {
                    let kmin = extreme(d, f64::min).expect("a candidate page holds a written cell");
                    let kmax = extreme(d, f64::max).expect("a candidate page holds a written cell");
                    q * (kmax + kmin) / 2.0 + f64::from(PAGE_SPREAD) * q.abs() * (kmax - kmin) / 2.0
                });
                terms.sum::<f64>()
            })
            .fold(f64::NEG_INFINITY, f64::max)
    }

    /// [`cchaha_plan::Op::SelectPages`]. `q`: `[t, h * d]`.
    pub(super) fn select(
        &self,
        q: &Matrix,
        n_heads: usize,
        mask: &MaskRule,
        budget: usize,
        batch: &Batch<'_>,
    ) -> Selection {
        let cells = batch.cells;
        let choose = |t: usize, g: usize| {
            let here = query_pos(batch, t);
            let hides = |cell: usize| {
                let (pos, pinned) = (cells.pos[cell], cells.pinned[cell]);
                (0..=here).contains(&pos) && !mask.visible(here, pos, pinned, false)
            };
            let candidates: Vec<u32> =
                pages_of(batch, t).iter().copied().filter(|&page| page_cells(page).any(hides)).collect();
            let bounds: Vec<f64> =
                candidates.iter().map(|&page| self.bound(q.row(t), n_heads, g, page, batch)).collect();
            rows::top_k(&bounds, budget).into_iter().map(|i| candidates[i]).collect()
        };
        let pages = (0..q.rows).map(|t| (0..self.spec.n_kv_heads).map(|g| choose(t, g)).collect()).collect();
        Selection { pages }
    }
}

/// What [`cchaha_plan::Op::Attend`] says, besides the queries.
pub(super) struct Attention<'a> {
    pub(super) cache: &'a KvCache,
    pub(super) n_heads: usize,
    pub(super) scale: f64,
    pub(super) softcap: Option<f64>,
    pub(super) mask: &'a MaskRule,
    pub(super) selection: Option<&'a Selection>,
    pub(super) sink_scores: Option<&'a [f64]>,
}

impl Attention<'_> {
    /// Token `t`: `q` and `out` are `[h * d]`.
    pub(super) fn row(&self, q: &[f64], t: usize, batch: &Batch<'_>, out: &mut [f64]) {
        let KvSpec { n_kv_heads, head_dim } = self.cache.spec;
        let heads = q.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim));
        for (h, (q, out)) in heads.enumerate() {
            let g = h / (self.n_heads / n_kv_heads);
            let cells = self.visible(t, g, batch);
            let mut scores: Vec<f64> = cells
                .iter()
                .map(|&cell| {
                    let score = self.scale * rows::dot(q, self.cache.head(&self.cache.k, cell, g));
                    self.softcap.map_or(score, |cap| rows::softcap(cap, score))
                })
                .collect();
            // A sink's score takes its share of the softmax and has no value.
            scores.extend(self.sink_scores.map(|sinks| sinks[h]));
            // Where nothing is visible the sum is empty.
            out.fill(0.0);
            for (&cell, p) in cells.iter().zip(rows::softmax(&scores)) {
                for (out, v) in out.iter_mut().zip(self.cache.head(&self.cache.v, cell, g)) {
                    *out += p * v;
                }
            }
        }
    }

    /// The cells of its sequence that token `t` sees for KV head `g`, in the order of the pages.
    fn visible(&self, t: usize, g: usize, batch: &Batch<'_>) -> Vec<usize> {
        let here = query_pos(batch, t);
        let mut visible = Vec::new();
        for &page in pages_of(batch, t) {
            let selected = self.selection.is_some_and(|selection| selection.pages[t][g].contains(&page));
            visible.extend(page_cells(page).filter(|&cell| {
                self.mask.visible(here, batch.cells.pos[cell], batch.cells.pinned[cell], selected)
            }));
        }
        visible
    }
}

/// The token's place in its sequence.
fn query_pos(batch: &Batch<'_>, t: usize) -> i32 {
    batch.cells.pos[batch.cell[t] as usize]
}

/// The pages of token `t`'s sequence.
fn pages_of<'a>(batch: &Batch<'a>, t: usize) -> &'a [u32] {
    batch.sequences[batch.sequence[t] as usize]
}

fn page_cells(page: u32) -> std::ops::Range<usize> {
    let first = page as usize * PAGE_CELLS;
    first..first + PAGE_CELLS
}
