//! The KV cache of one layer.
//!
//! ```text
//! k [page][kv_head][head_dim][16 cells]     cells innermost: the scores of a page are vectors of cells, no sums across lanes
//! v [page][kv_head][16 cells][head_dim]     dims innermost: the output is a vector of dims
//! ```
//! Values are f16, or f32 under `--exact`. Ranges of keys (for page selection) are computed per page on demand and kept
//! until the page's cells change.

use std::ops::Range;

use cchaha_plan::{Cells, Error, ErrorKind, KvSpec, PAGE_CELLS, PAGE_SPREAD, Result};

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

/// Keys and values.
#[derive(Debug)]
pub(crate) enum Values {
    F16 { k: Vec<u16>, v: Vec<u16> },
    F32 { k: Vec<f32>, v: Vec<f32> },
}

/// Ranges of the keys of every page.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// `[kv_head][page][from, to][head_dim]`: [`PAGE_SPREAD`] as wide as the keys' own range, about the same middle. A selection reads those
    /// of one head.
    pub(crate) ranges: Vec<f32>,
    /// For which cells of a page the ranges hold; 0 where they are stale.
    of_cells: Vec<u16>,
}

impl Bounds {
    /// Where the range of a page and head stands: from, then to.
    pub(crate) fn at(&self, spec: KvSpec, head: usize, page: usize) -> Range<usize> {
        let len = 2 * spec.head_dim;
        let first = (head * self.of_cells.len() + page) * len;
        first..first + len
    }
}

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) spec: KvSpec,
    pub(crate) values: Values,
    pub(crate) bounds: Option<Bounds>,
}

impl Cache {
    /// Bytes of a cache.
    pub(crate) fn bytes(spec: KvSpec, cells: usize, exact: bool, bounds: bool) -> u64 {
        let row = spec.n_kv_heads * spec.head_dim;
        let values = 2 * cells * row * if exact { 4 } else { 2 };
        let bounds = if bounds { cells / PAGE_CELLS * (row * 8 + 2) } else { 0 };
        (values + bounds) as u64
    }

    /// An empty cache. Its pages cost memory only once they are written.
    pub(crate) fn new(spec: KvSpec, cells: usize, exact: bool, bounds: bool) -> Result<Cache> {
        let row = spec.n_kv_heads * spec.head_dim;
        let n = cells * row;
        let values = if exact {
            Values::F32 { k: zeroed(n)?, v: zeroed(n)? }
        } else {
            Values::F16 { k: zeroed(n)?, v: zeroed(n)? }
        };
        let pages = cells / PAGE_CELLS;
        let bounds = if bounds {
            Some(Bounds { ranges: zeroed(2 * pages * row)?, of_cells: zeroed(pages)? })
        } else {
            None
        };
        Ok(Cache { spec, values, bounds })
    }

    /// Writes keys and values, `[tokens, n_kv_heads * head_dim]` each, into the tokens' cells.
    pub(crate) fn store(&mut self, cells: &[u32], k: &[f32], v: &[f32]) {
        match &mut self.values {
            Values::F16 { k: to_k, v: to_v } => store(self.spec, cells, k, v, to_k, to_v),
            Values::F32 { k: to_k, v: to_v } => store(self.spec, cells, k, v, to_k, to_v),
        }
        if let Some(bounds) = &mut self.bounds {
            for &cell in cells {
                bounds.of_cells[cell as usize / PAGE_CELLS] = 0;
            }
        }
    }

    /// Brings the bounds of `pages` up to date with the cells that are written now.
    pub(crate) fn refresh_bounds(&mut self, pages: &[u32], cells: &Cells) {
        let Some(bounds) = &mut self.bounds else { return };
        for &page in pages {
            let page = page as usize;
            let pos = &cells.pos[page * PAGE_CELLS..][..PAGE_CELLS];
            let written = pos.iter().enumerate().fold(0u16, |m, (i, &pos)| m | u16::from(pos >= 0) << i);
            if bounds.of_cells[page] == written {
                continue;
            }
            bounds.of_cells[page] = written;
            match &self.values {
                Values::F16 { k, .. } => refresh(self.spec, page, written, k, bounds),
                Values::F32 { k, .. } => refresh(self.spec, page, written, k, bounds),
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

fn refresh<E: Element>(spec: KvSpec, page: usize, written: u16, k: &[E], bounds: &mut Bounds) {
    let KvSpec { n_kv_heads, head_dim } = spec;
    let row = n_kv_heads * head_dim;
    let heads = k[page * row * PAGE_CELLS..][..row * PAGE_CELLS].chunks_exact(head_dim * PAGE_CELLS);
    for (head, columns) in heads.enumerate() {
        let at = bounds.at(spec, head, page);
        let (from, to) = bounds.ranges[at].split_at_mut(head_dim);
        for ((column, from), to) in columns.as_chunks::<PAGE_CELLS>().0.iter().zip(from).zip(to) {
            let [mut least, mut most] = [f32::INFINITY, f32::NEG_INFINITY];
            for (slot, &x) in column.iter().enumerate() {
                if written >> slot & 1 == 1 {
                    (least, most) = (least.min(x.to_f32()), most.max(x.to_f32()));
                }
            }
            let inset = (most - least) * (0.5 - 0.5 * PAGE_SPREAD);
            (*from, *to) = (least + inset, most - inset);
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
