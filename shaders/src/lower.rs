//! From a plan to dispatches: which kernel computes each step for one row, for a few and for many, where its operands lie, and
//! which steps are one dispatch.

use std::sync::Arc;

use cchaha_plan::{
    Activation, BufferId, Error, Format, KvSlot, NormKind, Op, Plan, Result, RopeId, RopeLayout, Routing,
    Rows, WeightId,
};

use crate::arena::{Arena, Place};
use crate::args::{self, NONE};
use crate::device::Device;
use crate::frame::Parts;
use crate::gpu::Choice;
use crate::launch::{Along, Launch};
use crate::pipelines::{Pipelines, Variant};
use crate::registry::{Kernel, Needs};
use crate::vectors::Vectors;
use crate::weights::{Piece, Stack, Weights};

/// Invocations of a workgroup of the kernels that take it as a constant.
const WIDTH: usize = 64;

/// Rows a tile of the matrix-matrix kernel spans, in both directions.
const GEMM_TILE: usize = 64;

/// Most rows of the classes a step is lowered for: one, a few, many.
pub(crate) const CLASSES: [usize; 3] = [1, 8, usize::MAX];

/// Most parts attention is split into, and cells of a part at least.
pub(crate) const MAX_SPLITS: usize = 16;
pub(crate) const SPLIT_CELLS: usize = 128;

/// Most query heads one workgroup of attention takes.
const MAX_HEADS: usize = 8;

/// What one or more steps of the plan became.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Whose rows it runs on.
    pub(crate) rows: Rows,
    /// Launches for each of [`CLASSES`].
    pub(crate) launches: [Vec<Launch>; 3],
}

/// Everything the lowering looks things up in.
pub(crate) struct Lower<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) device: &'a Device,
    pub(crate) pipelines: &'a Pipelines,
    pub(crate) choice: &'a Choice,
    pub(crate) arena: &'a Arena,
    pub(crate) regions: &'a Regions,
    pub(crate) parts: &'a Parts,
    pub(crate) vectors: &'a Vectors,
    pub(crate) caches: &'a [Arc<wgpu::BindGroup>],
    pub(crate) weights: Weights<'a>,
    /// Name of the module that reads and writes the cache.
    pub(crate) kv: &'static str,
}

/// Places in the arena beside the plan's buffers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Regions {
    /// Parts of split attention.
    pub(crate) attention: u32,
    pub(crate) bounds: u32,
    pub(crate) selections: Vec<u32>,
    pub(crate) routed: [Place; 2],
    pub(crate) expert_gate: Place,
    pub(crate) expert_up: Place,
    pub(crate) expert_down: Place,
}

impl Lower<'_> {
    /// All stages, in order.
    pub(crate) fn stages(&mut self) -> Result<Vec<Stage>> {
        let mut stages = Vec::new();
        let mut at = 0;
        while at < self.plan.steps.len() {
            let step = &self.plan.steps[at];
            let (taken, stage) = match self.products(at) {
                n if n > 1 => (n, self.stacked(at, n)?),
                _ => match self.heads(at) {
                    Some((n, heads)) => (n, self.fused_heads(&heads)?),
                    None => (1, self.step(&step.op)?),
                },
            };
            stages.push(stage);
            at += taken;
        }
        self.weights.flush()?;
        Ok(stages)
    }

    fn place(&self, id: BufferId) -> Place {
        self.arena.place(id)
    }

    fn width(&self, id: BufferId) -> usize {
        self.plan.buffer(id).width
    }

    fn stage(&self, like: BufferId, launches: [Vec<Launch>; 3]) -> Stage {
        Stage { rows: self.plan.buffer(like).rows, launches }
    }

    /// The same launches whatever the number of rows.
    fn always(&self, like: BufferId, launches: Vec<Launch>) -> Stage {
        self.stage(like, [launches.clone(), launches.clone(), launches])
    }

    fn kernel(&self, op: &str, format: Option<Format>, rows: usize) -> Result<&'static Kernel> {
        self.choice.kernel(op, format, rows).ok_or_else(|| {
            let format = format.map(|format| format!(" on {format}")).unwrap_or_default();
            Error::unsupported(format!("no GPU kernel computes {op}{format}"))
        })
    }

    fn launch<A: args::Args>(
        &self,
        variant: &Variant,
        group: Option<&Arc<wgpu::BindGroup>>,
        args: &A,
        x: usize,
        y: Along,
    ) -> Launch {
        Launch::new(self.pipelines.get(self.device, variant), group.cloned(), args, x, y)
    }

    /// A kernel without weights or cache: `x` workgroups for each row.
    fn plain<A: args::Args>(&self, op: &str, args: &A, x: usize) -> Result<Launch> {
        let variant = Variant::new(self.kernel(op, None, 1)?);
        Ok(self.launch(&variant, None, args, x, Along::Rows(1)))
    }

    fn step(&mut self, op: &Op) -> Result<Stage> {
        match *op {
            Op::Embed { table, scale, out } => {
                let launches = self.embed(table, scale, out)?;
                Ok(self.always(out, launches))
            }
            Op::Norm { kind, eps, weight, bias, group, x, out } => {
                let args = args::Norm {
                    x: self.place(x).base,
                    x_stride: self.place(x).stride,
                    out: self.place(out).base,
                    out_stride: self.place(out).stride,
                    group: group as u32,
                    weight: self.vectors.at(weight),
                    bias: self.vectors.optional(bias),
                    kind: u32::from(kind == NormKind::Layer),
                    eps,
                };
                let launch = self.plain("Norm", &args, self.width(x) / group)?;
                Ok(self.always(out, vec![launch]))
            }
            Op::MatMul { weight, bias, residual, x, out } => {
                let stack = Stack::Rows(vec![weight]);
                let launches =
                    self.products_of(&stack, self.vectors.optional(bias), residual, x, self.place(out))?;
                Ok(self.stage(out, launches))
            }
            Op::GatedMatMul { gate, up, activation, x, scratch, out } => {
                let launches = self.gated(gate, up, activation, x, scratch, out)?;
                Ok(self.stage(out, launches))
            }
            Op::Rope { table, head_dim, x } => {
                let rope = &self.plan.ropes[table.index()];
                let heads = self.width(x) / head_dim;
                let args = args::Rope {
                    x: self.place(x).base,
                    x_stride: self.place(x).stride,
                    heads: heads as u32,
                    head_dim: head_dim as u32,
                    pairs: rope.pairs.len() as u32,
                    interleaved: u32::from(rope.layout == RopeLayout::Interleaved),
                    table: self.parts.tables[table.index()] as u32,
                    magnitude: rope.magnitude as f32,
                    record: self.parts.record as u32,
                };
                let launch = self.plain("Rope", &args, (heads * rope.pairs.len()).div_ceil(WIDTH).max(1))?;
                Ok(self.always(x, vec![launch]))
            }
            Op::KvStore { slot, k, v } => {
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
                let launch =
                    self.launch(&variant, Some(&self.caches[slot.index()]), &args, x, Along::Rows(1));
                Ok(self.always(k, vec![launch]))
            }
            Op::SelectPages { q, slot, n_heads, mask, pages, out } => {
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
            Op::Attend { out, .. } => {
                let launches = self.attend(op)?;
                Ok(self.stage(out, launches))
            }
            Op::Activate { activation, x, up, out } => {
                let mode = if up.is_some() { 1 } else { 0 };
                self.elementwise((mode, kind(activation), 0.0), x, up.unwrap_or(x), out)
            }
            Op::Add { a, b, out } => self.elementwise((2, 0, 0.0), a, b, out),
            Op::Scale { factor, x } => self.elementwise((3, 0, factor), x, x, x),
            Op::Softcap { cap, x } => self.elementwise((4, 0, cap), x, x, x),
            Op::TakeRows { x, out } => {
                let args = args::TakeRows {
                    x: self.place(x).base,
                    x_stride: self.place(x).stride,
                    out: self.place(out).base,
                    out_stride: self.place(out).stride,
                    width: self.width(x) as u32,
                    wanted: self.parts.wanted as u32,
                };
                let launch = self.plain("TakeRows", &args, self.width(x).div_ceil(WIDTH))?;
                Ok(self.always(out, vec![launch]))
            }
            Op::Experts { .. } => self.experts(op),
            Op::TopK { x, k, values, indices } => {
                let launch = self.top_k(x, k, [self.place(values), self.place(indices)], false)?;
                Ok(self.always(values, vec![launch]))
            }
        }
    }

    fn elementwise(
        &self,
        (mode, activation, factor): (u32, u32, f32),
        x: BufferId,
        y: BufferId,
        out: BufferId,
    ) -> Result<Stage> {
        let launch = self.elementwise_at(
            (mode, activation, factor),
            [self.place(x), self.place(y), self.place(out)],
            self.width(x),
            1,
        )?;
        Ok(self.always(out, vec![launch]))
    }

    fn elementwise_at(
        &self,
        (mode, activation, factor): (u32, u32, f32),
        [x, y, out]: [Place; 3],
        width: usize,
        parts: u32,
    ) -> Result<Launch> {
        let args = args::Elementwise {
            x: x.base,
            x_stride: x.stride,
            y: y.base,
            y_stride: y.stride,
            out: out.base,
            out_stride: out.stride,
            width: width as u32,
            mode,
            activation,
            factor,
        };
        let variant = Variant::new(self.kernel("Elementwise", None, 1)?);
        Ok(self.launch(&variant, None, &args, width.div_ceil(WIDTH), Along::Rows(parts)))
    }

    fn embed(&mut self, table: WeightId, scale: f32, out: BufferId) -> Result<Vec<Launch>> {
        let kernel = self.kernel("Embed", Some(self.plan.weight(table).format), 1)?;
        let pieces = self.weights.pieces(&Stack::Rows(vec![table]))?;
        let launch = |piece: &Piece| {
            let [plane0, plane1, plane2, plane3] = piece.planes;
            let args = args::Embed {
                out: self.place(out).base,
                out_stride: self.place(out).stride,
                scale,
                record: self.parts.record as u32,
                first: piece.first as u32,
                rows: piece.rows as u32,
                runs: piece.runs as u32,
                tokens: 0,
                plane0,
                plane1,
                plane2,
                plane3,
            };
            let variant = Variant::new(kernel).with("FORMAT", piece.layout.module);
            self.launch(&variant, Some(&piece.group), &args, piece.runs.div_ceil(WIDTH), Along::Rows(1))
        };
        Ok(pieces.iter().map(launch).collect())
    }

    /// A product of a whole matrix: launches for every class.
    fn products_of(
        &mut self,
        stack: &Stack,
        bias: u32,
        residual: Option<BufferId>,
        x: BufferId,
        out: Place,
    ) -> Result<[Vec<Launch>; 3]> {
        let Stack::Rows(ids) = stack else { return Err(Error::unsupported("a pair is no single matrix")) };
        let format = self.plan.weight(ids[0]).format;
        let pieces = self.weights.pieces(stack)?;
        let residual = residual.map(|id| self.place(id));
        let mut launches: [Vec<Launch>; 3] = Default::default();
        for (class, launches) in CLASSES.into_iter().zip(&mut launches) {
            let kernel = self.kernel("MatMul", Some(format), class)?;
            for piece in &pieces {
                launches.push(self.product(
                    kernel,
                    piece,
                    0,
                    (bias, residual, piece.first),
                    self.place(x),
                    out,
                ));
            }
        }
        Ok(launches)
    }

    /// `piece.rows` rows from row `first` of the piece's buffer on, written to `out` from column `column` on.
    fn product(
        &self,
        kernel: &'static Kernel,
        piece: &Piece,
        first: usize,
        (bias, residual, column): (u32, Option<Place>, usize),
        x: Place,
        out: Place,
    ) -> Launch {
        let args = self.matmul_args(piece, first, (bias, residual, column), x, out);
        self.matrix_launch(kernel, piece, &args)
    }

    fn matmul_args(
        &self,
        piece: &Piece,
        first: usize,
        (bias, residual, column): (u32, Option<Place>, usize),
        x: Place,
        out: Place,
    ) -> args::MatMul {
        let [plane0, plane1, plane2, plane3] = piece.planes;
        let column = column as u32;
        args::MatMul {
            x: x.base,
            x_stride: x.stride,
            out: out.base + column,
            out_stride: out.stride,
            residual: residual.map_or(NONE, |place| place.base + column),
            residual_stride: residual.map_or(0, |place| place.stride),
            bias: if bias == NONE { NONE } else { bias + column },
            first: first as u32,
            rows: piece.rows as u32,
            runs: piece.runs as u32,
            tokens: 0,
            activation: 0,
            plane0,
            plane1,
            plane2,
            plane3,
        }
    }

    fn matrix_launch(&self, kernel: &'static Kernel, piece: &Piece, args: &args::MatMul) -> Launch {
        let variant = Variant::new(kernel).with("FORMAT", piece.layout.module);
        match kernel.counts.iter().find(|(name, _)| *name == "COLUMNS") {
            Some(&(_, columns)) => {
                let most = match kernel.needs {
                    Needs::Subgroups => self.device.info.subgroup.0 as usize,
                    Needs::Nothing => WIDTH,
                };
                let lanes = lanes(piece.runs).min(most.max(1));
                let variant = variant.constant("LANES", lanes);
                let x = piece.rows.div_ceil(WIDTH / lanes);
                self.launch(&variant, Some(&piece.group), args, x, Along::Tiles(columns))
            }
            None => {
                let x = piece.rows.div_ceil(GEMM_TILE);
                self.launch(&variant, Some(&piece.group), args, x, Along::Tiles(GEMM_TILE as u32))
            }
        }
    }

    /// One or a few rows: both products and the gate in one kernel. Many: the products, then the gate.
    fn gated(
        &mut self,
        gate: WeightId,
        up: WeightId,
        activation: Activation,
        x: BufferId,
        scratch: BufferId,
        out: BufferId,
    ) -> Result<[Vec<Launch>; 3]> {
        let format = self.plan.weight(gate).format;
        let (to_gate, to_up, from) = (self.place(scratch), self.place(out), self.place(x));
        let activate =
            self.elementwise_at((1, kind(activation), 0.0), [to_gate, to_up, to_up], self.width(out), 1)?;
        if self.plan.weight(up).format != format {
            let gates = self.products_of(&Stack::Rows(vec![gate]), NONE, None, x, to_gate)?;
            let mut launches = self.products_of(&Stack::Rows(vec![up]), NONE, None, x, to_up)?;
            for (launches, gates) in launches.iter_mut().zip(gates) {
                launches.extend(gates);
                launches.push(activate.clone());
            }
            return Ok(launches);
        }
        let pieces = self.weights.pieces(&Stack::Pair(gate, up))?;
        let mut launches: [Vec<Launch>; 3] = Default::default();
        for (class, launches) in CLASSES.into_iter().zip(&mut launches) {
            if let Some(kernel) = self.choice.kernel("GatedMatMul", Some(format), class) {
                for piece in &pieces {
                    let mut args = self.matmul_args(piece, 0, (NONE, None, piece.first), from, to_up);
                    args.activation = kind(activation);
                    launches.push(self.matrix_launch(kernel, piece, &args));
                }
                continue;
            }
            let kernel = self.kernel("MatMul", Some(format), class)?;
            for piece in &pieces {
                for (first, out) in [(0, to_gate), (piece.rows, to_up)] {
                    launches.push(self.product(kernel, piece, first, (NONE, None, piece.first), from, out));
                }
            }
            launches.push(activate.clone());
        }
        Ok(launches)
    }

    fn attend(&self, op: &Op) -> Result<[Vec<Launch>; 3]> {
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
        };
        let shared = n_heads / spec.n_kv_heads;
        let heads = (1..=MAX_HEADS).rev().find(|n| shared.is_multiple_of(*n)).unwrap_or(1);
        let variant = Variant::new(self.kernel("Attend", None, 1)?)
            .with("KV", self.kv)
            .with("HEADS", heads)
            .with("DIMS", spec.head_dim.div_ceil(WIDTH))
            .constant("HEAD_DIM", spec.head_dim);
        let whole =
            self.launch(&variant, Some(&self.caches[slot.index()]), &args, n_heads / heads, Along::Rows(1));
        let merge = Variant::new(self.kernel("AttendMerge", None, 1)?).constant("HEAD_DIM", spec.head_dim);
        let mut merge = self.launch(&merge, None, &args, n_heads, Along::Rows(1));
        merge.only_split = true;
        Ok([vec![whole.clone(), merge.clone()], vec![whole.clone(), merge], vec![whole]])
    }

    fn top_k(&self, x: BufferId, k: usize, [values, indices]: [Place; 2], softmax: bool) -> Result<Launch> {
        let args = args::TopK {
            x: self.place(x).base,
            x_stride: self.place(x).stride,
            values: values.base,
            values_stride: values.stride,
            indices: indices.base,
            indices_stride: indices.stride,
            width: self.width(x) as u32,
            k: k as u32,
            softmax: u32::from(softmax),
        };
        self.plain("TopK", &args, 1)
    }

    /// Route, gate and up of the chosen experts, activate, down, sum. Both routings are the softmax over the chosen.
    fn experts(&mut self, op: &Op) -> Result<Stage> {
        let Op::Experts { router, routing, top_k, gate, up, down, activation, x, out } = *op else {
            return Err(Error::unsupported("not an Experts step"));
        };
        let softmax = matches!(routing, Routing::SoftmaxThenTopKRenormalized | Routing::TopKThenSoftmax);
        let regions = self.regions.clone();
        let [shares, indices] = regions.routed;
        let mut launches = vec![self.top_k(router, top_k, [shares, indices], softmax)?];
        let slots = top_k as u32;
        for (weight, x, share, out) in [
            (gate, self.place(x), top_k, regions.expert_gate),
            (up, self.place(x), top_k, regions.expert_up),
            (down, regions.expert_gate, 1, regions.expert_down),
        ] {
            let shape = self.plan.weight(weight).shape;
            if weight == down {
                let places = [regions.expert_gate, regions.expert_up, regions.expert_gate];
                launches.push(self.elementwise_at((1, kind(activation), 0.0), places, shape.cols, slots)?);
            }
            let kernel = self.kernel("Experts", Some(self.plan.weight(weight).format), 1)?;
            for piece in self.weights.pieces(&Stack::Rows(vec![weight]))? {
                let [plane0, plane1, plane2, plane3] = piece.planes;
                let args = args::ExpertGemv {
                    x: x.base,
                    x_stride: x.stride,
                    out: out.base,
                    out_stride: out.stride,
                    indices: indices.base,
                    indices_stride: indices.stride,
                    top_k: slots,
                    share: share as u32,
                    rows: shape.rows as u32,
                    runs: piece.runs as u32,
                    first: piece.first as u32,
                    held: piece.rows as u32,
                    plane0,
                    plane1,
                    plane2,
                    plane3,
                };
                let lanes = lanes(piece.runs);
                let variant =
                    Variant::new(kernel).with("FORMAT", piece.layout.module).constant("LANES", lanes);
                let x = shape.rows.div_ceil(WIDTH / lanes);
                launches.push(self.launch(&variant, Some(&piece.group), &args, x, Along::Rows(slots)));
            }
        }
        let args = args::ExpertSum {
            x: regions.expert_down.base,
            x_stride: regions.expert_down.stride,
            out: self.place(out).base,
            out_stride: self.place(out).stride,
            shares: shares.base,
            shares_stride: shares.stride,
            width: self.width(out) as u32,
            top_k: slots,
        };
        launches.push(self.plain("ExpertSum", &args, self.width(out).div_ceil(WIDTH))?);
        Ok(self.always(out, launches))
    }

    /// How many products from step `at` on can be one: same input and format, outputs side by side.
    fn products(&self, at: usize) -> usize {
        let product = |i: usize| match self.plan.steps.get(i)?.op {
            Op::MatMul { weight, residual: None, x, out, .. } => {
                Some((self.plan.weight(weight).format, x, out))
            }
            _ => None,
        };
        let Some((format, input, mut last)) = product(at) else { return 0 };
        let mut n = 1;
        while let Some((other, x, out)) = product(at + n) {
            if other != format || x != input || !self.arena.neighbours(last, out) {
                break;
            }
            (last, n) = (out, n + 1);
        }
        n
    }

    fn stacked(&mut self, at: usize, n: usize) -> Result<Stage> {
        let steps = &self.plan.steps[at..at + n];
        let mut weights = Vec::new();
        let mut biases = Vec::new();
        let mut ends = None;
        for step in steps {
            let Op::MatMul { weight, bias, x, out, .. } = step.op else { continue };
            weights.push(weight);
            biases.push((bias, self.width(out)));
            ends.get_or_insert((x, out));
        }
        let (x, out) = ends.ok_or_else(|| Error::unsupported("no products to stack"))?;
        let bias = self.vectors.stacked(&biases);
        let launches = self.products_of(&Stack::Rows(weights), bias, None, x, self.place(out))?;
        Ok(self.stage(out, launches))
    }

    /// The steps between the projections and the attention, if they are what one kernel does: norms and rotary turns of q and
    /// k heads, then the store.
    fn heads(&self, at: usize) -> Option<(usize, Heads)> {
        let window = &self.plan.steps[at..];
        let n = window.iter().position(|step| !matches!(step.op, Op::Norm { .. } | Op::Rope { .. }))?;
        let Op::KvStore { slot, k, v } = window[n].op else { return None };
        let head_dim = self.plan.kv[slot.index()].head_dim;
        let mut q = None;
        let (mut norms, mut turned) = ([None, None], [None, None]);
        for step in &window[..n] {
            let (x, is_norm) = match step.op {
                Op::Norm { kind: NormKind::Rms, bias: None, group, x, out, .. }
                    if x == out && group == head_dim =>
                {
                    (x, true)
                }
                Op::Rope { head_dim: d, x, .. } if d == head_dim => (x, false),
                _ => return None,
            };
            if x != k && *q.get_or_insert(x) != x {
                return None;
            }
            let which = usize::from(x == k);
            match step.op {
                Op::Norm { weight, eps, .. }
                    if is_norm && norms[which].is_none() && turned[which].is_none() =>
                {
                    norms[which] = Some((weight, eps));
                }
                Op::Rope { table, .. } if turned[which].is_none() => turned[which] = Some(table),
                _ => return None,
            }
        }
        let q = q?;
        let [q_turned, k_turned] = turned;
        let same_eps = norms[0].zip(norms[1]).is_none_or(|(a, b)| a.1 == b.1);
        let fits = q_turned.is_some() && q_turned == k_turned && same_eps && q != k && q != v && k != v;
        // The kernel leaves k in the cache only; nobody may look for it in its buffer.
        if !fits || self.read_later(at + n + 1, k) {
            return None;
        }
        Some((n + 1, Heads { q, k, v, slot, table: q_turned?, norms }))
    }

    /// Whether a step from `at` on reads the buffer before one writes it.
    fn read_later(&self, at: usize, id: BufferId) -> bool {
        for step in &self.plan.steps[at..] {
            match step.op {
                Op::MatMul { residual, x, out, .. } => {
                    if x == id || residual == Some(id) {
                        return true;
                    }
                    if out == id {
                        return false;
                    }
                }
                Op::Embed { out, .. } if out == id => return false,
                Op::Embed { .. } => {}
                Op::GatedMatMul { x, .. } if x == id => return true,
                Op::Norm { x, .. } | Op::Rope { x, .. } | Op::Scale { x, .. } | Op::Softcap { x, .. }
                    if x == id =>
                {
                    return true;
                }
                Op::KvStore { k, v, .. } if k == id || v == id => return true,
                Op::SelectPages { q, .. } | Op::Attend { q, .. } if q == id => return true,
                Op::Activate { x, up, .. } if x == id || up == Some(id) => return true,
                Op::Add { a, b, .. } if a == id || b == id => return true,
                Op::TakeRows { x, .. } | Op::TopK { x, .. } if x == id => return true,
                Op::Experts { router, x, .. } if router == id || x == id => return true,
                _ => {}
            }
        }
        self.plan.logits == id
    }

    fn fused_heads(&self, heads: &Heads) -> Result<Stage> {
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
}

/// What [`Lower::fused_heads`] does at once.
#[derive(Clone, Copy, Debug)]
struct Heads {
    q: BufferId,
    k: BufferId,
    v: BufferId,
    slot: KvSlot,
    table: RopeId,
    /// Weight and eps of the norms of q and k.
    norms: [Option<(WeightId, f32)>; 2],
}

fn kind(activation: Activation) -> u32 {
    match activation {
        Activation::Silu => 0,
        Activation::GeluTanh => 1,
    }
}

/// A window of 0 hides nothing in the kernels; none hides all but what the other rules show, which no plan asks for.
fn window(window: Option<u32>) -> u32 {
    window.unwrap_or(0)
}

/// Invocations that share a row of `runs` runs: a power of two, so many that short rows leave few idle.
fn lanes(runs: usize) -> usize {
    (runs / 4).next_power_of_two().clamp(8, WIDTH)
}
