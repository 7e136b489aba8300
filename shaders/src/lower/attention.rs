//! Attention and what prepares it.

use cchaha_plan::{BufferId, Error, KvSlot, Op, Result, RopeLayout, WeightId};

use super::fuse::Heads;
use super::{CLASSES, Lower, Stage, WIDTH};
use crate::args::{self, NONE};
use crate::launch::{Along, Launch};
use crate::pipelines::Variant;
use crate::registry::{Kernel, TILED};

/// Most query heads one workgroup of the kernel for few tokens takes.
const MAX_HEADS: usize = 8;

/// Tokens of a workgroup of the kernel for many, and dimensions its invocations share evenly.
const TILE_TOKENS: u32 = 32;
const TILE_DIMS: usize = 64;

impl Lower<'_> {
    pub(super) fn attend(&self, op: &Op) -> Result<[Vec<Launch>; 3]> {
        let Op::Attend { q, slot, n_heads, scale, softcap, mask, selection, sink_scores, out } = *op else {
            return Ok(Default::default());
        };
        let (spec, rule) = (self.plan.kv[slot.index()], self.plan.masks[mask.index()]);
        let args = args::Attend {
            q: self.place(q).base,
            q_stride: self.place(q).stride,
            out: self.place(out).base,
            out_stride: self.place(out).stride,
            parts: self.regions.attention,
            splits: 1,
            heads: n_heads as u32,
            kv_heads: spec.n_kv_heads as u32,
            record: self.parts.record as u32,
            cells: self.parts.cells as u32,
            selection: selection.map_or(NONE, |id| self.regions.selections[id.index()]),
            pages: self.parts.pages as u32,
            window: window(rule.window),
            sinks: rule.sinks,
            rules: u32::from(rule.pins),
            sink_scores: self.vectors.optional(sink_scores),
            scale,
            softcap: softcap.unwrap_or(0.0),
            tokens: 0,
        };
        let merge = Variant::new(self.kernel("AttendMerge", None, 1)?).constant("HEAD_DIM", spec.head_dim);
        let mut merge = self.launch(&merge, None, &args, n_heads, Along::Rows(1));
        merge.only_split = true;
        let shared = n_heads / spec.n_kv_heads;
        let heads = (1..=MAX_HEADS).rev().find(|n| shared.is_multiple_of(*n)).unwrap_or(1);
        let group = &self.caches[slot.index()];
        let variant =
            |kernel: &Kernel| Variant::new(kernel).with("KV", self.kv).constant("HEAD_DIM", spec.head_dim);
        let mut launches: [Vec<Launch>; 3] = Default::default();
        for (class, launches) in CLASSES.into_iter().zip(&mut launches) {
            let kernel = self.kernel("Attend", None, class)?;
            if kernel.module == TILED {
                let variant = variant(kernel).with("DIMS", spec.head_dim.div_ceil(TILE_DIMS));
                let launch = self.launch(&variant, Some(group), &args, n_heads, Along::Tiles(TILE_TOKENS));
                launches.push(launch.whole());
                continue;
            }
            let variant = variant(kernel).with("HEADS", heads).with("DIMS", spec.head_dim.div_ceil(WIDTH));
            launches.push(self.launch(&variant, Some(group), &args, n_heads / heads, Along::Rows(1)));
            if class < usize::MAX {
                launches.push(merge.clone());
            }
        }
        Ok(launches)
    }

    pub(super) fn fused_heads(&self, heads: &Heads) -> Result<Stage> {
        let Heads { q, k, v, slot, table, norms } = *heads;
        let (spec, rope) = (self.plan.kv[slot.index()], &self.plan.ropes[table.index()]);
        let n_heads = self.width(q) / spec.head_dim;
        let norm = |norm: Option<(WeightId, f32)>| norm.map_or(NONE, |(weight, _)| self.vectors.at(weight));
        let args = args::Heads {
            q: self.place(q).base,
            q_stride: self.place(q).stride,
            k: self.place(k).base,
            k_stride: self.place(k).stride,
            v: self.place(v).base,
            v_stride: self.place(v).stride,
            heads: n_heads as u32,
            kv_heads: spec.n_kv_heads as u32,
            pairs: rope.pairs.len() as u32,
            interleaved: u32::from(rope.layout == RopeLayout::Interleaved),
            table: self.parts.tables[table.index()] as u32,
            magnitude: rope.magnitude as f32,
            record: self.parts.record as u32,
            q_norm: norm(norms[0]),
            k_norm: norm(norms[1]),
            eps: norms[0].or(norms[1]).map_or(0.0, |(_, eps)| eps),
        };
        let variant = Variant::new(self.kernel("Heads", None, 1)?)
            .with("KV", self.kv)
            .constant("HEAD_DIM", spec.head_dim);
        let x = n_heads + 2 * spec.n_kv_heads;
        let launch = self.launch(&variant, Some(&self.caches[slot.index()]), &args, x, Along::Rows(1));
        Ok(self.always(q, vec![launch]))
    }

    pub(super) fn kv_store(&self, slot: KvSlot, k: BufferId, v: BufferId) -> Result<Stage> {
        let spec = self.plan.kv[slot.index()];
        let args = args::KvStore {
            k: self.place(k).base,
            k_stride: self.place(k).stride,
            v: self.place(v).base,
            v_stride: self.place(v).stride,
            kv_heads: spec.n_kv_heads as u32,
            head_dim: spec.head_dim as u32,
            record: self.parts.record as u32,
        };
        let variant = Variant::new(self.kernel("KvStore", None, 1)?).with("KV", self.kv);
        let x = (spec.n_kv_heads * spec.head_dim.div_ceil(2)).div_ceil(WIDTH);
        let launch = self.launch(&variant, Some(&self.caches[slot.index()]), &args, x, Along::Rows(1));
        Ok(self.always(k, vec![launch]))
    }

    pub(super) fn select_pages(&self, op: &Op) -> Result<Stage> {
        let Op::SelectPages { q, slot, n_heads, mask, pages, out } = *op else {
            return Err(Error::unsupported("not a SelectPages step"));
        };
        let (spec, rule) = (self.plan.kv[slot.index()], self.plan.masks[mask.index()]);
        let args = args::SelectPages {
            q: self.place(q).base,
            q_stride: self.place(q).stride,
            heads: n_heads as u32,
            kv_heads: spec.n_kv_heads as u32,
            record: self.parts.record as u32,
            cells: self.parts.cells as u32,
            selection: self.regions.selections[out.index()],
            bounds: self.regions.bounds,
            pages: self.parts.pages as u32,
            budget: pages.min(self.parts.pages) as u32,
            window: window(rule.window),
            sinks: rule.sinks,
            rules: u32::from(rule.pins),
        };
        let variant = Variant::new(self.kernel("SelectPages", None, 1)?)
            .with("KV", self.kv)
            .constant("HEAD_DIM", spec.head_dim);
        let group = Some(&self.caches[slot.index()]);
        let launch = self.launch(&variant, group, &args, spec.n_kv_heads, Along::Rows(1));
        Ok(self.always(q, vec![launch]))
    }
}

/// A window of 0 hides nothing in the kernels; none hides all but what the other rules show, which no plan asks for.
fn window(window: Option<u32>) -> u32 {
    window.unwrap_or(0)
}
