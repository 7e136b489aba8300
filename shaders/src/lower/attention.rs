//! Attention and what prepares it.

use cchaha_plan::{BufferId, Error, KvSlot, Op, PAGE_SPREAD, Result, RopeLayout, WeightId};

use super::fuse::Heads;
use super::{CLASSES, Lower, Stage, WIDTH};
use crate::args::{self, NONE};
use crate::formats::RUN;
use crate::launch::{Along, Launch};
use crate::pipelines::Variant;
use crate::registry::{Kernel, TILED};

/// Most query heads one workgroup of the kernel for few tokens takes.
const MAX_HEADS: usize = 8;

/// Tokens of a workgroup of the kernel for many, and dimensions its invocations share evenly.
const TILE_TOKENS: u32 = 32;
const TILE_DIMS: usize = 64;

/// Where the attention of one token finds its queries when it does itself what [`Lower::heads_launch`] would do before it.
const RAW_QUERIES: &str = "lib/queries_raw";

/// Norms and rotary turn of heads, as the kernels are told.
#[derive(Clone, Copy, Default)]
struct Turn {
    pairs: u32,
    interleaved: u32,
    table: u32,
    magnitude: f32,
    q_norm: u32,
    k_norm: u32,
    eps: f32,
}

impl Lower<'_> {
    /// Attention, and before it what prepares its heads, where that was not done yet.
    pub(super) fn attend(&mut self, op: &Op, before: Option<&Heads>) -> Result<[Vec<Launch>; 3]> {
        let Op::Attend { q, slot, n_heads, scale, softcap, mask, selection, sink_scores, out } = *op else {
            return Ok(Default::default());
        };
        let (spec, rule) = (self.plan.kv[slot.index()], self.plan.masks[mask.index()]);
        let turn = before.map(|heads| self.turn(heads)).unwrap_or_default();
        let base = |id: Option<BufferId>| id.map_or(NONE, |id| self.place(id).base);
        let mut args = args::Attend {
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
            twin: NONE,
            k: base(before.map(|heads| heads.k)),
            v: base(before.map(|heads| heads.v)),
            pairs: turn.pairs,
            interleaved: turn.interleaved,
            table: turn.table,
            magnitude: turn.magnitude,
            q_norm: turn.q_norm,
            k_norm: turn.k_norm,
            eps: turn.eps,
        };
        let merge = Variant::new(self.kernel("AttendMerge", None, 1)?).constant("HEAD_DIM", spec.head_dim);
        let shared = n_heads / spec.n_kv_heads;
        let heads = (1..=MAX_HEADS).rev().find(|n| shared.is_multiple_of(*n)).unwrap_or(1);
        let group = Some(self.caches[slot.index()].clone());
        let kv = self.kv;
        let variant =
            |kernel: &Kernel| Variant::new(kernel).with("KV", kv).constant("HEAD_DIM", spec.head_dim);
        let mut launches: [Vec<Launch>; 3] = Default::default();
        for (class, launches) in launches.iter_mut().enumerate() {
            let kernel = self.kernel("Attend", None, CLASSES[class])?;
            // For one token, where one workgroup has all that look at a key.
            let raw = class == 0 && heads == shared && kernel.module != TILED;
            if let Some(before) = before.filter(|_| !raw) {
                launches.push(self.heads_launch(before)?);
            }
            if kernel.module == TILED {
                let variant = variant(kernel).with("DIMS", spec.head_dim.div_ceil(TILE_DIMS));
                let launch = self.launch(&variant, group.as_ref(), &args, n_heads, Along::Tiles(TILE_TOKENS));
                launches.push(launch.whole());
                continue;
            }
            // Every head must be whole runs: the parts of attention are merged head by head.
            args.twin = if spec.head_dim.is_multiple_of(RUN) { self.twin(out, class) } else { NONE };
            let mut variant =
                variant(kernel).with("HEADS", heads).with("DIMS", spec.head_dim.div_ceil(WIDTH));
            if before.is_some() && raw {
                variant = variant.with("QUERIES", RAW_QUERIES);
            }
            launches.push(self.launch(&variant, group.as_ref(), &args, n_heads / heads, Along::Rows(1)));
            if CLASSES[class] < usize::MAX {
                let mut merge = self.launch(&merge, None, &args, n_heads, Along::Rows(1));
                merge.only_split = true;
                launches.push(merge);
            }
        }
        Ok(launches)
    }

    /// The dispatch of what stands between the projections and the attention.
    pub(super) fn heads_launch(&self, heads: &Heads) -> Result<Launch> {
        let Heads { q, k, v, slot, .. } = *heads;
        let spec = self.plan.kv[slot.index()];
        let n_heads = self.width(q) / spec.head_dim;
        let Turn { pairs, interleaved, table, magnitude, q_norm, k_norm, eps } = self.turn(heads);
        let args = args::Heads {
            q: self.place(q).base,
            q_stride: self.place(q).stride,
            k: self.place(k).base,
            k_stride: self.place(k).stride,
            v: self.place(v).base,
            v_stride: self.place(v).stride,
            heads: n_heads as u32,
            kv_heads: spec.n_kv_heads as u32,
            pairs,
            interleaved,
            table,
            magnitude,
            record: self.parts.record as u32,
            q_norm,
            k_norm,
            eps,
        };
        let variant = Variant::new(self.kernel("Heads", None, 1)?)
            .with("KV", self.kv)
            .constant("HEAD_DIM", spec.head_dim);
        let x = n_heads + 2 * spec.n_kv_heads;
        Ok(self.launch(&variant, Some(&self.caches[slot.index()]), &args, x, Along::Rows(1)))
    }

    fn turn(&self, heads: &Heads) -> Turn {
        let rope = &self.plan.ropes[heads.table.index()];
        let norm = |norm: Option<(WeightId, f32)>| norm.map_or(NONE, |(weight, _)| self.vectors.at(weight));
        Turn {
            pairs: rope.pairs.len() as u32,
            interleaved: u32::from(rope.layout == RopeLayout::Interleaved),
            table: self.parts.tables[heads.table.index()] as u32,
            magnitude: rope.magnitude as f32,
            q_norm: norm(heads.norms[0]),
            k_norm: norm(heads.norms[1]),
            eps: heads.norms[0].or(heads.norms[1]).map_or(0.0, |(_, eps)| eps),
        }
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

    pub(super) fn query_store(&self, q: BufferId, slot: KvSlot) -> Result<Stage> {
        let queries = self.regions.queries[slot.index()].unwrap_or_default();
        let args = args::QueryStore {
            q: self.place(q).base,
            q_stride: self.place(q).stride,
            width: self.width(q) as u32,
            record: self.parts.record as u32,
            queries: queries.base,
            queries_stride: queries.stride,
            tokens: 0,
        };
        let launch = self.plain("QueryStore", &args, self.width(q).div_ceil(WIDTH))?;
        Ok(self.always(q, vec![launch]))
    }

    /// The dispatches of [`cchaha_plan::Runner::fold`], but for what it is told.
    pub(crate) fn folds(&self) -> Result<Vec<(args::Fold, Launch)>> {
        let mut folds = Vec::new();
        for step in &self.plan.steps {
            let Op::QueryStore { slot, n_heads, scale, .. } = step.op else { continue };
            let spec = self.plan.kv[slot.index()];
            let queries = self.regions.queries[slot.index()].unwrap_or_default();
            let [list, weights, scores] = self.regions.fold;
            let args = args::Fold {
                queries: queries.base,
                queries_stride: queries.stride,
                heads: n_heads as u32,
                kv_heads: spec.n_kv_heads as u32,
                scale,
                list: list.base,
                weights: weights.base,
                scores: scores.base,
                cells: weights.stride,
                pages: 0,
                old: 0,
                sinks: 0,
                keep: 0,
            };
            let variant = Variant::new(self.kernel("Fold", None, 1)?)
                .with("KV", self.kv)
                .constant("HEAD_DIM", spec.head_dim);
            let group = Some(&self.caches[slot.index()]);
            folds.push((args, self.launch(&variant, group, &args, spec.n_kv_heads, Along::Rows(1))));
        }
        Ok(folds)
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
            spread: PAGE_SPREAD,
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
