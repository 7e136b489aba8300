//! Attention over splits of the sequences: all of them by one thread, or, where there are few tokens, by all threads.

use cchaha_plan::{PAGE_CELLS, Result};

use crate::attention::{Attend, Sums, TILE};
use crate::kv::zeroed;
use crate::pool::{Grid, Pool, Tile};
use crate::registry;
use crate::scratch::Scratch;

/// Sums of splits until they are added up.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    /// `[kv_head][split][tokens, group * head_dim]`, tokens at most [`TILE`].
    out: Vec<f32>,
    /// `[kv_head][split][tokens, group]`.
    states: Vec<[f32; 2]>,
}

/// What the largest step asks of [`Partial`] and of [`Scratch`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sizes {
    /// Outputs and query heads of one KV head.
    width: usize,
    group: usize,
    /// The same of all.
    all: (usize, usize),
}

impl Sizes {
    pub(crate) fn take(&mut self, n_heads: usize, n_kv_heads: usize, head_dim: usize) {
        let group = n_heads / n_kv_heads;
        self.width = self.width.max(group * head_dim);
        self.group = self.group.max(group);
        self.all = (self.all.0.max(n_heads * head_dim), self.all.1.max(n_heads));
    }

    /// Sums of two splits.
    pub(crate) fn scratch(&self) -> (usize, usize) {
        (2 * TILE * self.width, 2 * TILE * self.group)
    }

    fn partial(&self, cells: usize) -> (usize, usize) {
        let n = TILE * Attend::splits_of(cells / PAGE_CELLS);
        (n * self.all.0, n * self.all.1)
    }

    /// Bytes of a [`Partial`].
    pub(crate) fn bytes(&self, cells: usize) -> usize {
        let (out, states) = self.partial(cells);
        4 * out + 8 * states
    }
}

impl Partial {
    /// For caches of `cells`.
    pub(crate) fn new(sizes: &Sizes, cells: usize) -> Result<Partial> {
        let (out, states) = sizes.partial(cells);
        Ok(Partial { out: zeroed(out)?, states: zeroed(states)? })
    }

    /// One Attend step.
    pub(crate) fn attend(
        &mut self,
        kernel: registry::Attend,
        a: &Attend<'_>,
        pool: &Pool,
        scratch: &mut [Scratch],
        out: &mut [f32],
    ) {
        let (tokens, group, width) = (a.batch.tokens.len(), a.group(), a.width());
        let (heads, splits) = (a.cache.spec.n_kv_heads, a.splits());
        let tiles = Grid::new(out, tokens, heads * width, TILE, width);
        if tokens > TILE || splits == 1 || pool.threads() == 1 {
            pool.run(scratch, tiles, |scratch, _, mut tile| whole(kernel, a, scratch, &mut tile));
            return;
        }
        let parts = heads * splits;
        let (n_out, n_states) = (tokens * width, tokens * group);
        let grids = (
            Grid::new(&mut self.out, parts, n_out, 1, n_out),
            Grid::new(&mut self.states, parts, n_states, 1, n_states),
        );
        pool.run(scratch, grids, |scratch, part, (mut out, mut states)| {
            let (out, states) = (out.row(part), states.row(part));
            for tokens in a.sequences(0..tokens) {
                let mut sums = Sums {
                    out: &mut out[tokens.start * width..tokens.end * width],
                    states: &mut states[tokens.start * group..tokens.end * group],
                };
                match a.split(tokens, part / splits, part % splits) {
                    Some(split) => kernel(a, &split, &mut scratch.attention, &mut sums),
                    None => sums.clear(),
                }
            }
        });
        let (sums, states) = (&mut self.out[..parts * n_out], &mut self.states[..parts * n_states]);
        let sums = Grid::new(sums, heads, splits * n_out, 1, splits * n_out);
        let states = Grid::new(states, heads, splits * n_states, 1, splits * n_states);
        pool.run(scratch, (tiles, (sums, states)), |_, head, (mut tile, (mut out, mut states))| {
            let (total, rest) = out.row(head).split_at_mut(n_out);
            let (total_states, rest_states) = states.row(head).split_at_mut(n_states);
            let mut total = Sums { out: total, states: total_states };
            for (out, states) in rest.chunks_exact_mut(n_out).zip(rest_states.chunks_exact_mut(n_states)) {
                total.add(&Sums { out, states });
            }
            a.finish(0..tokens, head, &total, &mut tile);
        });
    }
}

/// One tile, split after split.
fn whole(kernel: registry::Attend, a: &Attend<'_>, scratch: &mut Scratch, tile: &mut Tile<'_, f32>) {
    let (group, width) = (a.group(), a.width());
    let head = tile.cols().start / width;
    let Scratch { attention, sums, states, .. } = scratch;
    for tokens in a.sequences(tile.rows()) {
        let (total, next) = sums.split_at_mut(tokens.len() * width);
        let (total_states, next_states) = states.split_at_mut(tokens.len() * group);
        let mut total = Sums { out: total, states: total_states };
        let mut next =
            Sums { out: &mut next[..tokens.len() * width], states: &mut next_states[..tokens.len() * group] };
        let mut index = 0;
        while let Some(split) = a.split(tokens.clone(), head, index) {
            if index == 0 {
                kernel(a, &split, attention, &mut total);
            } else {
                kernel(a, &split, attention, &mut next);
                total.add(&next);
            }
            index += 1;
        }
        a.finish(tokens, head, &total, tile);
    }
}
