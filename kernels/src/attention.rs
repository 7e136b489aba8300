//! Attention: what its kernels read, and how the sums of a sequence's splits become one (online softmax, arXiv 1805.02867).
//!
//! ```text
//! a split, 64 pages:   m = max s    l = sum exp(s - m)    o = sum exp(s - m) v       a kernel
//! two splits:          m' = max(m1, m2)    l' = l1 exp(m1 - m') + l2 exp(m2 - m')    o' likewise
//! ```
//! Splits begin at fixed places of the sequence and are added in its order, whether one thread takes them all, as where there are many
//! tokens, or every thread some: results do not depend on batch mates or threads.

use std::ops::Range;

use cchaha_plan::{Batch, EMPTY, MaskRule, PAGE_CELLS};

use crate::kv::Cache;
use crate::pool::Tile;

/// Tokens of a tile.
pub(crate) const TILE: usize = 16;

/// Pages of a split.
const SPLIT: usize = 64;

/// What is known of a page as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PageSpan {
    /// Least and greatest position of its written cells; least > greatest where there are none.
    pub(crate) least: i32,
    pub(crate) greatest: i32,
    /// All cells are written.
    pub(crate) full: bool,
    /// Some cell is pinned.
    pub(crate) pinned: bool,
}

impl PageSpan {
    /// Summarizes one page.
    pub(crate) fn of(pos: &[i32], pinned: &[bool]) -> PageSpan {
        let written = pos.iter().copied().filter(|&pos| pos != EMPTY);
        PageSpan {
            least: written.clone().min().unwrap_or(i32::MAX),
            greatest: written.clone().max().unwrap_or(i32::MIN),
            full: written.count() == pos.len(),
            pinned: pinned.contains(&true),
        }
    }
}

/// Pages chosen per token and KV head, one bit per page.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// `[tokens, n_kv_heads, words]`.
    pub(crate) bits: Vec<u64>,
    pub(crate) n_kv_heads: usize,
    pub(crate) words: usize,
}

impl Selection {
    #[inline]
    fn has(&self, token: usize, head: usize, page: usize) -> bool {
        self.bits[(token * self.n_kv_heads + head) * self.words + page / 64] >> (page % 64) & 1 == 1
    }
}

/// One Attend step on one batch.
#[derive(Debug)]
pub(crate) struct Attend<'a> {
    /// `[tokens, n_heads * head_dim]`.
    pub(crate) q: &'a [f32],
    pub(crate) n_heads: usize,
    pub(crate) scale: f32,
    pub(crate) softcap: Option<f32>,
    pub(crate) rule: MaskRule,
    pub(crate) selection: Option<&'a Selection>,
    /// `[n_heads]`.
    pub(crate) sink_scores: Option<&'a [f32]>,
    pub(crate) cache: &'a Cache,
    pub(crate) batch: &'a Batch<'a>,
    pub(crate) axes: usize,
    /// Per page of the cache; valid for the pages of the batch's sequences.
    pub(crate) spans: &'a [PageSpan],
}

impl Attend<'_> {
    fn query_pos(&self, token: usize) -> i32 {
        self.batch.positions[token * self.axes]
    }

    /// Which cells of `page` a token sees, bit per cell.
    pub(crate) fn visible(&self, token: usize, head: usize, page: usize) -> u16 {
        let (at, span, rule) = (self.query_pos(token), self.spans[page], self.rule);
        if span.least > at {
            return 0;
        }
        let distance = |pos: i32| i64::from(at) - i64::from(pos);
        let inside = |pos: i32| rule.window.is_none_or(|window| distance(pos) < i64::from(window));
        if span.full && span.greatest <= at && inside(span.least) {
            return u16::MAX;
        }
        let selected = self.selection.is_some_and(|chosen| chosen.has(token, head, page));
        let kept = selected || (rule.pins && span.pinned) || i64::from(span.least) < i64::from(rule.sinks);
        if !kept && !inside(span.greatest) {
            return 0;
        }
        let cells = page * PAGE_CELLS..(page + 1) * PAGE_CELLS;
        let table = self.batch.cells;
        let pairs = table.pos[cells.clone()].iter().zip(&table.pinned[cells]);
        pairs.enumerate().fold(0, |bits, (i, (&pos, &pinned))| {
            bits | u16::from(rule.visible(at, pos, pinned, selected)) << i
        })
    }

    /// The tokens of a tile, those of one sequence together.
    pub(crate) fn sequences(&self, tokens: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let sequence = &self.batch.sequence[tokens.clone()];
        sequence.chunk_by(|a, b| a == b).scan(tokens.start, |end, run| {
            let first = *end;
            *end += run.len();
            Some(first..*end)
        })
    }

    /// Splits of a sequence of so many pages.
    pub(crate) fn splits_of(pages: usize) -> usize {
        pages.div_ceil(SPLIT)
    }

    /// How many splits the longest sequence has.
    pub(crate) fn splits(&self) -> usize {
        self.batch.sequences.iter().map(|pages| Attend::splits_of(pages.len())).max().unwrap_or(0)
    }

    /// Split `index` for tokens of one sequence, if it has that many.
    pub(crate) fn split(&self, tokens: Range<usize>, head: usize, index: usize) -> Option<Split<'_>> {
        let pages = self.batch.sequences[self.batch.sequence[tokens.start] as usize];
        Some(Split { tokens, head, pages: pages.chunks(SPLIT).nth(index)? })
    }

    /// Query heads that share a KV head.
    pub(crate) fn group(&self) -> usize {
        self.n_heads / self.cache.spec.n_kv_heads
    }

    /// Outputs of a token and KV head.
    pub(crate) fn width(&self) -> usize {
        self.group() * self.cache.spec.head_dim
    }

    /// What the sums of all splits come to: outputs of `head` for `tokens`.
    pub(crate) fn finish(&self, tokens: Range<usize>, head: usize, sums: &Sums<'_>, out: &mut Tile<'_, f32>) {
        let (group, head_dim) = (self.group(), self.cache.spec.head_dim);
        let rows = sums.out.chunks_exact(group * head_dim).zip(sums.states.chunks_exact(group));
        for (t, (row, states)) in tokens.zip(rows) {
            let each = row.chunks_exact(head_dim).zip(states).zip(out.row(t).chunks_exact_mut(head_dim));
            for (h, ((row, &[max, mut sum]), out)) in each.enumerate() {
                let mut factor = 1.0;
                if let Some(sinks) = self.sink_scores {
                    // The sink joins the denominator as a cell without a value.
                    let sink = sinks[head * group + h];
                    let top = max.max(sink);
                    factor = (max - top).exp();
                    sum = sum * factor + (sink - top).exp();
                }
                let factor = factor / sum;
                out.iter_mut().zip(row).for_each(|(out, x)| *out = x * factor);
            }
        }
    }
}

/// What a kernel computes at a time: tokens of one sequence, at most [`TILE`], the query heads of one KV head, and part of the sequence.
#[derive(Clone, Debug)]
pub(crate) struct Split<'a> {
    pub(crate) tokens: Range<usize>,
    pub(crate) head: usize,
    pub(crate) pages: &'a [u32],
}

/// Sums of a split, or of several.
#[derive(Debug)]
pub(crate) struct Sums<'a> {
    /// `[tokens, group * head_dim]`.
    pub(crate) out: &'a mut [f32],
    /// Greatest score and sum of weights, `[tokens, group]`.
    pub(crate) states: &'a mut [[f32; 2]],
}

impl Sums<'_> {
    /// Of nothing.
    pub(crate) fn clear(&mut self) {
        self.out.fill(0.0);
        self.states.fill([f32::NEG_INFINITY, 0.0]);
    }

    /// Adds those of the split that comes next.
    pub(crate) fn add(&mut self, next: &Sums<'_>) {
        let head_dim = self.out.len() / self.states.len();
        let rows = self.out.chunks_exact_mut(head_dim).zip(next.out.chunks_exact(head_dim));
        for (state, (next, (row, add))) in self.states.iter_mut().zip(next.states.iter().zip(rows)) {
            let top = state[0].max(next[0]);
            if top == f32::NEG_INFINITY {
                // Neither saw anything.
                continue;
            }
            let [shrink, weight] = [(state[0] - top).exp(), (next[0] - top).exp()];
            *state = [top, state[1] * shrink + next[1] * weight];
            row.iter_mut().zip(add).for_each(|(x, add)| *x = *x * shrink + add * weight);
        }
    }
}
