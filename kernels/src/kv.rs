//! The KV cache of one layer.
//!
//! ```text
//! k [page][kv_head][head_dim][16 cells]     cells innermost: the scores of a page are vectors of cells, no sums across lanes
//! v [page][kv_head][16 cells][head_dim]     dims innermost: the output is a vector of dims
//! ranges [kv_head][16 pages][least of head_dim, then greatest][16 pages]     as keys of twice the dims: bounds are scores
//! ```
//! Numbers are f16, or f32 under `--exact`. Ranges of keys (for page selection) are computed per page on demand and kept
//! until the page's cells change.

use std::ops::Range;

use cchaha_plan::{Cells, Error, ErrorKind, KvSpec, PAGE_CELLS, Result};

use crate::simd::{LANES, Simd};

/// How a cache stores a number.
pub(crate) trait Element: bytemuck::Pod + Send + Sync {
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::V;
    fn of(x: f32) -> Self;
    fn to_f32(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[f32; LANES]) -> S::V {
        s.load(x)
    }
    #[inline(always)]
    fn of(x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Element for u16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[u16; LANES]) -> S::V {
        s.load_f16(x)
    }
    #[inline(always)]
    fn of(x: f32) -> u16 {
        half::f16::from_f32(x).to_bits()
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        half::f16::from_bits(self).to_f32()
    }
}

/// Keys, values, and the ranges of the keys of every page, if pages are selected.
#[derive(Debug)]
pub(crate) enum Values {
    F16 { k: Vec<u16>, v: Vec<u16>, ranges: Vec<u16> },
    F32 { k: Vec<f32>, v: Vec<f32>, ranges: Vec<f32> },
}

/// Where the ranges of 16 pages and a head stand: a selection reads those of one head.
pub(crate) fn ranges_at(spec: KvSpec, pages: usize, head: usize, page: usize) -> Range<usize> {
    let len = 2 * spec.head_dim * PAGE_CELLS;
    let first = (head * pages.div_ceil(PAGE_CELLS) + page / PAGE_CELLS) * len;
    first..first + len
}

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) spec: KvSpec,
    pub(crate) values: Values,
    /// For which cells of a page the ranges hold, 0 where they are stale; empty without ranges.
    ranged: Vec<u16>,
}

impl Cache {
    /// Bytes of a cache.
    pub(crate) fn bytes(spec: KvSpec, cells: usize, exact: bool, bounds: bool) -> u64 {
        let number = if exact { 4 } else { 2 };
        let values = 2 * cells * spec.n_kv_heads * spec.head_dim * number;
        let bounds = if bounds { Cache::ranges(spec, cells) * number + cells / PAGE_CELLS * 2 } else { 0 };
        (values + bounds) as u64
    }

    /// How many numbers the ranges of `cells` are.
    fn ranges(spec: KvSpec, cells: usize) -> usize {
        spec.n_kv_heads * ranges_at(spec, cells / PAGE_CELLS, 1, 0).start
    }

    /// An empty cache. Its pages cost memory only once they are written.
    pub(crate) fn new(spec: KvSpec, cells: usize, exact: bool, bounds: bool) -> Result<Cache> {
        let n = cells * spec.n_kv_heads * spec.head_dim;
        let (ranges, pages) = if bounds { (Cache::ranges(spec, cells), cells / PAGE_CELLS) } else { (0, 0) };
        let values = if exact {
            Values::F32 { k: zeroed(n)?, v: zeroed(n)?, ranges: zeroed(ranges)? }
        } else {
            Values::F16 { k: zeroed(n)?, v: zeroed(n)?, ranges: zeroed(ranges)? }
        };
        Ok(Cache { spec, values, ranged: zeroed(pages)? })
    }

    /// Where the ranges of a page and its 15 neighbours stand among those of all.
    pub(crate) fn ranges_of(&self, head: usize, page: usize) -> Range<usize> {
        ranges_at(self.spec, self.ranged.len(), head, page)
    }

    /// Writes keys and values, `[tokens, n_kv_heads * head_dim]` each, into the tokens' cells.
    pub(crate) fn store(&mut self, cells: &[u32], k: &[f32], v: &[f32]) {
        match &mut self.values {
            Values::F16 { k: to_k, v: to_v, .. } => store(self.spec, cells, k, v, to_k, to_v),
            Values::F32 { k: to_k, v: to_v, .. } => store(self.spec, cells, k, v, to_k, to_v),
        }
        if !self.ranged.is_empty() {
            for &cell in cells {
                self.ranged[cell as usize / PAGE_CELLS] = 0;
            }
        }
    }

    /// Brings the ranges of `pages` up to date with the cells that are written now.
    pub(crate) fn refresh_bounds(&mut self, pages: &[u32], cells: &Cells) {
        for &page in pages {
            let page = page as usize;
            let pos = &cells.pos[page * PAGE_CELLS..][..PAGE_CELLS];
            let written = pos.iter().enumerate().fold(0u16, |m, (i, &pos)| m | u16::from(pos >= 0) << i);
            if self.ranged[page] == written {
                continue;
            }
            self.ranged[page] = written;
            let (spec, pages) = (self.spec, self.ranged.len());
            match &mut self.values {
                Values::F16 { k, ranges, .. } => refresh(spec, (page, pages), written, k, ranges),
                Values::F32 { k, ranges, .. } => refresh(spec, (page, pages), written, k, ranges),
            }
        }
    }
}

fn store<E: Element>(spec: KvSpec, cells: &[u32], k: &[f32], v: &[f32], to_k: &mut [E], to_v: &mut [E]) {
    let KvSpec { n_kv_heads, head_dim } = spec;
    let row = n_kv_heads * head_dim;
    for (t, &cell) in cells.iter().enumerate() {
        let (page, slot) = (cell as usize / PAGE_CELLS, cell as usize % PAGE_CELLS);
        for head in 0..n_kv_heads {
            let from = t * row + head * head_dim..t * row + (head + 1) * head_dim;
            let block = (page * n_kv_heads + head) * head_dim * PAGE_CELLS;
            let columns = to_k[block..][..head_dim * PAGE_CELLS].as_chunks_mut::<PAGE_CELLS>().0;
            for (column, &x) in columns.iter_mut().zip(&k[from.clone()]) {
                column[slot] = E::of(x);
            }
            for (to, &x) in to_v[block + slot * head_dim..][..head_dim].iter_mut().zip(&v[from]) {
                *to = E::of(x);
            }
        }
    }
}

/// Ranges of page `page` of `pages`.
fn refresh<E: Element>(spec: KvSpec, (page, pages): (usize, usize), written: u16, k: &[E], ranges: &mut [E]) {
    let KvSpec { n_kv_heads, head_dim } = spec;
    let row = n_kv_heads * head_dim;
    let heads = k[page * row * PAGE_CELLS..][..row * PAGE_CELLS].chunks_exact(head_dim * PAGE_CELLS);
    for (head, columns) in heads.enumerate() {
        let (least, most) = ranges[ranges_at(spec, pages, head, page)].split_at_mut(head_dim * PAGE_CELLS);
        let to = least.as_chunks_mut::<PAGE_CELLS>().0.iter_mut().zip(most.as_chunks_mut::<PAGE_CELLS>().0);
        for (column, (least, most)) in columns.as_chunks::<PAGE_CELLS>().0.iter().zip(to) {
            let mut range = [f32::INFINITY, f32::NEG_INFINITY];
            for (slot, &x) in column.iter().enumerate() {
                if written >> slot & 1 == 1 {
                    range = [range[0].min(x.to_f32()), range[1].max(x.to_f32())];
                }
            }
            [least[page % PAGE_CELLS], most[page % PAGE_CELLS]] = range.map(E::of);
        }
    }
}

/// `n` zeros, or an error where memory does not suffice.
pub(crate) fn zeroed<T: bytemuck::Zeroable>(n: usize) -> Result<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(n).map_err(|()| {
        Error::new(
            ErrorKind::DoesNotFit,
            format!("the system refused {} MiB; try a smaller context", (n * size_of::<T>()) >> 20),
        )
    })
}
