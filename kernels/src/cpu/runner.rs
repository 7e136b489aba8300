//! A prepared plan: its buffers, its KV cache, and one method per op.

use std::sync::Arc;

use cchaha_plan::{
    Batch, BufferId, Error, Footprint, Limits, NormKind, Observer, Op, PAGE_CELLS, Plan, Result, Rows,
    Runner, WeightId,
};

use super::Picked;
use super::attention::{self, Partial};
use super::experts::{ExpertBuffers, ExpertSizes, Experts};
use super::matrix::{Matrix, Operands};
use super::packed::Packed;
use super::rotary::Rotary;
use crate::activations::Activations;
use crate::attention::{Attend, PageSpan, Selection};
use crate::generic::attend;
use crate::generic::elementwise::Input;
use crate::generic::fold::{Fold, Queries};
use crate::generic::matmul;
use crate::generic::norm::NormArgs;
use crate::generic::rows::{embed, top_k};
use crate::generic::select;
use crate::kv::{Cache, zeroed};
use crate::pool::{Grid, Pool, Tile};
use crate::product::Residual;
use crate::scratch::{self, Scratch};

/// Token rows in one part of a cheap op. One part runs on the caller without waking anyone.
const PART_TOKENS: usize = 8;

/// What a plan asks of a runner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    limits: Limits,
    exact: bool,
    /// KV cells, whole pages.
    cells: usize,
    bounds: bool,
    /// Longest row of a weight that is multiplied.
    cols: usize,
    /// Floats of a thread.
    attention: usize,
    splits: attention::Sizes,
    /// KV heads of the widest selection.
    selecting: usize,
    experts: ExpertSizes,
}

impl Sizes {
    pub(crate) fn of(plan: &Plan, limits: &Limits, exact: bool) -> Sizes {
        let cells = limits.cells.next_multiple_of(PAGE_CELLS);
        let mut sizes = Sizes {
            limits: *limits,
            exact,
            cells,
            bounds: false,
            cols: 0,
            attention: 0,
            splits: attention::Sizes::default(),
            selecting: 0,
            experts: ExpertSizes::default(),
        };
        for step in &plan.steps {
            match step.op {
                Op::MatMul { weight, .. } | Op::GatedMatMul { gate: weight, .. } => {
                    sizes.cols = sizes.cols.max(plan.weight(weight).shape.cols);
                }
                Op::Experts { gate, top_k, .. } => {
                    let shape = plan.weight(gate).shape;
                    sizes.cols = sizes.cols.max(shape.cols).max(shape.rows);
                    let e = &mut sizes.experts;
                    e.top_k = e.top_k.max(top_k);
                    e.cols = e.cols.max(shape.cols);
                    e.rows = e.rows.max(shape.rows);
                }
                Op::Attend { slot, n_heads, .. } => {
                    let kv = plan.kv[slot.index()];
                    let len = attend::scratch_len(n_heads, kv.n_kv_heads, kv.head_dim);
                    sizes.attention = sizes.attention.max(len);
                    sizes.splits.take(n_heads, kv.n_kv_heads, kv.head_dim);
                }
                Op::SelectPages { slot, n_heads, .. } => {
                    let kv = plan.kv[slot.index()];
                    sizes.bounds = true;
                    sizes.attention =
                        sizes.attention.max(select::scratch_len(n_heads, kv.n_kv_heads, kv.head_dim));
                    sizes.selecting = sizes.selecting.max(kv.n_kv_heads);
                }
                _ => {}
            }
        }
        sizes
    }

    fn pages(&self) -> usize {
        self.cells / PAGE_CELLS
    }

    fn rows(&self, rows: Rows) -> usize {
        match rows {
            Rows::Tokens => self.limits.batch,
            Rows::Logits => self.limits.logits,
        }
    }

    fn selection_words(&self) -> usize {
        self.limits.batch * self.selecting * self.pages().div_ceil(64)
    }

    fn scratch(&self) -> Result<Scratch> {
        let panel = scratch::Panel::of(self.cols);
        let (sums, states) = self.splits.scratch();
        Ok(Scratch {
            floats: zeroed(matmul::panel_len(self.cols))?,
            lines: vec![scratch::NO_LINE; panel.lines],
            sides: zeroed(panel.sides)?,
            totals: zeroed(panel.totals)?,
            attention: zeroed(self.attention)?,
            sums: zeroed(sums)?,
            states: zeroed(states)?,
            pages: Vec::with_capacity(if self.bounds { self.pages() } else { 0 }),
        })
    }

    fn scratch_bytes(&self) -> usize {
        let panel = scratch::Panel::of(self.cols);
        let (sums, states) = self.splits.scratch();
        let floats =
            matmul::panel_len(self.cols) + panel.sides + panel.totals + self.attention + sums + 2 * states;
        4 * floats + 64 * panel.lines + if self.bounds { 8 * self.pages() } else { 0 }
    }

    pub(crate) fn footprint(&self, plan: &Plan, threads: usize) -> Footprint {
        let kv = plan.kv.iter().map(|&spec| Cache::bytes(spec, self.cells, self.exact, self.bounds)).sum();
        let buffers: usize = plan.buffers.iter().map(|b| 4 * b.width * self.rows(b.rows)).sum();
        let ropes: usize = plan.ropes.iter().map(|rope| 8 * rope.pairs.len() * self.limits.batch).sum();
        let rest = Activations::bytes(self.limits.batch, self.cols)
            + plan.selections * 8 * self.selection_words()
            + self.pages() * size_of::<PageSpan>()
            + self.splits.bytes(self.cells)
            + self.experts.bytes(self.limits.batch)
            + threads * self.scratch_bytes();
        Footprint { kv_bytes: kv, buffer_bytes: (buffers + ropes + rest) as u64 }
    }
}

/// See the file's header.
pub(crate) struct CpuRunner {
    plan: Arc<Plan>,
    sizes: Sizes,
    picked: Picked,
    pool: Arc<Pool>,
    scratch: Vec<Scratch>,
    /// Norm weights, biases and sink scores as f32; empty for other weights.
    vectors: Vec<Vec<f32>>,
    buffers: Vec<Vec<f32>>,
    quantized: Activations,
    /// Which buffer `quantized` is the twin of.
    twin_of: Option<BufferId>,
    caches: Vec<Cache>,
    spans: Vec<PageSpan>,
    selections: Vec<Selection>,
    partial: Partial,
    /// Of the last tokens, for each cache that can be folded.
    queries: Vec<Option<Queries>>,
    rotary: Vec<Rotary>,
    experts: ExpertBuffers,
    packed: Packed,
    observer: Option<Box<dyn Observer>>,
}

impl CpuRunner {
    pub(crate) fn new(
        plan: Arc<Plan>,
        limits: Limits,
        exact: bool,
        picked: Picked,
        pool: Arc<Pool>,
        pack: usize,
    ) -> Result<CpuRunner> {
        let sizes = Sizes::of(&plan, &limits, exact);
        let mut vectors = vec![Vec::new(); plan.weights.len()];
        for step in &plan.steps {
            let (a, b) = match step.op {
                Op::Norm { weight, bias, .. } => (Some(weight), bias),
                Op::MatMul { bias, .. } => (bias, None),
                Op::Attend { sink_scores, .. } => (sink_scores, None),
                _ => (None, None),
            };
            for id in [a, b].into_iter().flatten() {
                let bytes = plan.weight(id).bytes.as_slice().as_chunks::<4>().0;
                vectors[id.index()] = bytes.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            }
        }
        let buffers = plan.buffers.iter().map(|b| zeroed(b.width * sizes.rows(b.rows)));
        let caches = plan.kv.iter().map(|&spec| Cache::new(spec, sizes.cells, exact, sizes.bounds));
        let rotary = plan.ropes.iter().map(|table| Rotary::new(table, limits.batch));
        let selection = || Ok(Selection { bits: zeroed(sizes.selection_words())?, n_kv_heads: 0, words: 0 });
        Ok(CpuRunner {
            scratch: (0..pool.threads()).map(|_| sizes.scratch()).collect::<Result<_>>()?,
            vectors,
            buffers: buffers.collect::<Result<_>>()?,
            quantized: Activations::new(limits.batch, sizes.cols),
            twin_of: None,
            caches: caches.collect::<Result<_>>()?,
            spans: vec![PageSpan::default(); sizes.pages()],
            selections: (0..plan.selections).map(|_| selection()).collect::<Result<_>>()?,
            partial: Partial::new(&sizes.splits, sizes.cells)?,
            queries: queries(&plan)?,
            rotary: rotary.collect::<Result<_>>()?,
            experts: ExpertBuffers::new(sizes.experts, limits.batch)?,
            packed: Packed::new(&plan, &picked, pack),
            observer: None,
            plan,
            sizes,
            picked,
            pool,
        })
    }

    fn rows(&self, id: BufferId, batch: &Batch<'_>) -> usize {
        match self.plan.buffer(id).rows {
            Rows::Tokens => batch.tokens.len(),
            Rows::Logits => batch.logits.len(),
        }
    }

    fn vector(&self, id: WeightId) -> &[f32] {
        &self.vectors[id.index()]
    }

    /// Takes a buffer out for writing; [`CpuRunner::put`] brings it back. Its 16-bit twin is stale from here on.
    fn take(&mut self, id: BufferId) -> Vec<f32> {
        if self.twin_of == Some(id) {
            self.twin_of = None;
        }
        std::mem::take(&mut self.buffers[id.index()])
    }

    fn put(&mut self, id: BufferId, buffer: Vec<f32>) {
        self.buffers[id.index()] = buffer;
    }

    /// Calls `f(self, row number, row)` for every row of `out` in use.
    fn each_row(
        &mut self,
        id: BufferId,
        batch: &Batch<'_>,
        out: &mut [f32],
        f: impl Fn(&CpuRunner, usize, &mut [f32]) + Sync,
    ) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let width = self.plan.buffer(id).width;
        let grid = Grid::new(out, self.rows(id, batch), width, PART_TOKENS, width);
        let runner = &*self;
        runner.pool.run(&mut scratch, grid, |_, _, mut tile: Tile<'_, f32>| {
            for row in tile.rows() {
                f(runner, row, tile.row(row));
            }
        });
        self.scratch = scratch;
    }

    /// Row `row` of an input that may be the taken output.
    fn input<'a>(&'a self, id: BufferId, out: BufferId) -> impl Fn(usize) -> Input<'a> {
        let (buffer, width) = (&self.buffers[id.index()], self.plan.buffer(id).width);
        move |row| if id == out { Input::Out } else { Input::Row(&buffer[row * width..][..width]) }
    }

    /// Gets an input ready: shows it to the observer, and makes sure `quantized` holds it if this weight's kernel reads
    /// that.
    fn quantize(&mut self, weight: WeightId, x: BufferId, batch: &Batch<'_>) {
        let tokens = self.rows(x, batch);
        if let Some(observer) = &mut self.observer {
            let cols = self.plan.buffer(x).width;
            observer.input(weight, 0, &self.buffers[x.index()][..tokens * cols]);
        }
        let mut matrix = Matrix { picked: &self.picked, pool: &self.pool, scratch: &mut self.scratch };
        if let Some(quantize) = matrix.quantizer(self.plan.weight(weight))
            && self.twin_of != Some(x)
        {
            let cols = self.plan.buffer(x).width;
            let rows = self.plan.buffer(x).rows;
            let coarse = (0..tokens).map(|row| batch.is_coarse(rows, row));
            matrix.quantize(quantize, &self.buffers[x.index()], cols, coarse, &mut self.quantized);
            self.twin_of = Some(x);
        }
    }
}

macro_rules! matrix {
    ($runner:ident) => {
        Matrix { picked: &$runner.picked, pool: &$runner.pool, scratch: &mut $runner.scratch }
    };
}

impl Runner for CpuRunner {
    fn run(&mut self, batch: &Batch<'_>) -> Result<&[f32]> {
        let plan = self.plan.clone();
        batch.validate(&plan, &self.sizes.limits)?;
        for (rotary, table) in self.rotary.iter_mut().zip(&plan.ropes) {
            rotary.fill(table, batch, plan.axes);
        }
        for &page in batch.sequences.iter().copied().flatten() {
            let cells = page as usize * PAGE_CELLS..(page as usize + 1) * PAGE_CELLS;
            self.spans[page as usize] =
                PageSpan::of(&batch.cells.pos[cells.clone()], &batch.cells.pinned[cells]);
        }
        self.twin_of = None;
        for step in &plan.steps {
            self.step(&plan, &step.op, batch);
        }
        if batch.tokens.len() == 1 {
            self.packed.go_on(&plan, &self.picked, &self.pool, &mut self.scratch);
        }
        Ok(&self.buffers[plan.logits.index()][..batch.logits.len() * plan.outputs()])
    }

    fn fill(&mut self, buffer: BufferId, rows: &[f32]) -> Result<()> {
        let filled = self.buffers.get_mut(buffer.index()).and_then(|held| held.get_mut(..rows.len()));
        let filled = filled.ok_or_else(|| Error::usage(format!("buffer {} holds fewer rows", buffer.0)))?;
        filled.copy_from_slice(rows);
        Ok(())
    }

    fn fold(&mut self, pages: &[u32], old: usize, sinks: usize, keep: usize) -> Result<()> {
        let fold = Fold { pages, old, sinks, keep };
        for (cache, queries) in self.caches.iter_mut().zip(&self.queries) {
            queries.iter().for_each(|queries| fold.run(cache, queries));
        }
        Ok(())
    }

    fn observe(&mut self, observer: Box<dyn Observer>) -> Result<()> {
        self.observer = Some(observer);
        Ok(())
    }
}

impl CpuRunner {
    fn step(&mut self, plan: &Plan, op: &Op, batch: &Batch<'_>) {
        match *op {
            Op::Embed { table, scale, out } => {
                let mut buffer = self.take(out);
                let table = plan.weight(table);
                self.each_row(out, batch, &mut buffer, |_, t, row| {
                    embed(table, batch.tokens[t] as usize, scale, row);
                });
                self.put(out, buffer);
            }
            Op::Norm { kind, eps, weight, bias, x, out, .. } => {
                self.norm(batch, (kind, eps), weight, bias, x, out);
            }
            Op::MatMul { weight, bias, residual, x, out } => {
                self.matmul(plan, batch, (weight, bias), residual, x, out);
            }
            Op::GatedMatMul { gate, up, activation, x, scratch, out } => {
                let tokens = self.rows(out, batch);
                self.quantize(gate, x, batch);
                self.quantize(up, x, batch);
                let (mut gate_out, mut buffer) = (self.take(scratch), self.take(out));
                let operands = |weight| Operands {
                    weight: plan.weight(weight),
                    packed: self.packed.of(weight),
                    expert: 0,
                    tokens,
                    x: &self.buffers[x.index()],
                    quantized: &self.quantized,
                };
                let (gate, up) = (operands(gate), operands(up));
                matrix!(self).gated(gate, up, activation, &mut gate_out, &mut buffer);
                self.put(scratch, gate_out);
                self.put(out, buffer);
            }
            Op::Rope { table, head_dim, x } => {
                let mut buffer = self.take(x);
                let rope = self.picked.rope;
                self.each_row(x, batch, &mut buffer, |runner, t, row| {
                    let angles = runner.rotary[table.index()].of_token(&plan.ropes[table.index()], t);
                    rope(angles, head_dim, row);
                });
                self.put(x, buffer);
            }
            Op::KvStore { slot, k, v } => {
                let (k, v) = (&self.buffers[k.index()], &self.buffers[v.index()]);
                self.caches[slot.index()].store(batch.cell, k, v);
            }
            Op::QueryStore { q, slot, .. } => {
                if let Some(queries) = &mut self.queries[slot.index()] {
                    let rows = self.buffers[q.index()].chunks_exact(queries.width);
                    for (row, position) in rows.zip(batch.positions.iter().step_by(plan.axes)) {
                        let at = *position as usize % PAGE_CELLS * queries.width;
                        queries.rows[at..][..queries.width].copy_from_slice(row);
                    }
                }
            }
            Op::SelectPages { .. } => self.select(plan, op, batch),
            Op::Attend { .. } => self.attend(plan, op, batch),
            Op::Activate { activation, x, up, out } => {
                let mut buffer = self.take(out);
                let activate = self.picked.activate;
                self.each_row(out, batch, &mut buffer, |runner, t, row| {
                    let up = up.map(|up| runner.input(up, out)(t));
                    activate(activation, runner.input(x, out)(t), up, row);
                });
                self.put(out, buffer);
            }
            Op::Add { a, b, out } => {
                let mut buffer = self.take(out);
                let add = self.picked.add;
                self.each_row(out, batch, &mut buffer, |runner, t, row| {
                    add(runner.input(a, out)(t), runner.input(b, out)(t), row);
                });
                self.put(out, buffer);
            }
            Op::Scale { factor, x } => {
                let mut buffer = self.take(x);
                let scale = self.picked.scale;
                self.each_row(x, batch, &mut buffer, |_, _, row| scale(factor, row));
                self.put(x, buffer);
            }
            Op::Softcap { cap, x } => {
                let mut buffer = self.take(x);
                let softcap = self.picked.softcap;
                self.each_row(x, batch, &mut buffer, |_, _, row| softcap(cap, row));
                self.put(x, buffer);
            }
            Op::TakeRows { x, out } => {
                let mut buffer = self.take(out);
                let width = plan.buffer(x).width;
                for (row, &t) in buffer.chunks_exact_mut(width).zip(batch.logits) {
                    row.copy_from_slice(&self.buffers[x.index()][t as usize * width..][..width]);
                }
                self.put(out, buffer);
            }
            Op::Experts { router, routing, top_k, gate, up, down, activation, x, out } => {
                let mut buffer = self.take(out);
                self.twin_of = None;
                let experts = Experts {
                    ids: [gate, up, down],
                    router: &self.buffers[router.index()],
                    routing,
                    top_k,
                    gate: plan.weight(gate),
                    up: plan.weight(up),
                    down: plan.weight(down),
                    packed: [gate, up, down].map(|id| self.packed.of(id)),
                    activation,
                    x: &self.buffers[x.index()],
                    tokens: self.rows(out, batch),
                    rows: plan.buffer(out).rows,
                    batch,
                };
                let observer = self.observer.as_deref_mut();
                experts.run(
                    &mut matrix!(self),
                    &mut self.quantized,
                    &mut self.experts,
                    &mut buffer,
                    observer,
                );
                self.put(out, buffer);
            }
            Op::TopK { x, k, values, indices } => {
                let (mut values_out, mut indices_out) = (self.take(values), self.take(indices));
                let (rows, width) = (self.rows(x, batch), plan.buffer(x).width);
                let input = &self.buffers[x.index()];
                let grids =
                    (Grid::new(&mut values_out, rows, k, 1, k), Grid::new(&mut indices_out, rows, k, 1, k));
                self.pool.run(&mut self.scratch, grids, |_, row, (mut values, mut indices)| {
                    top_k(&input[row * width..][..width], values.row(row), indices.row(row));
                });
                self.put(values, values_out);
                self.put(indices, indices_out);
            }
        }
    }

    fn norm(
        &mut self,
        batch: &Batch<'_>,
        (kind, eps): (NormKind, f32),
        weight: WeightId,
        bias: Option<WeightId>,
        x: BufferId,
        out: BufferId,
    ) {
        let mut buffer = self.take(out);
        let norm = self.picked.norm;
        self.each_row(out, batch, &mut buffer, |runner, t, row| {
            let bias = bias.map(|bias| runner.vector(bias));
            let args = NormArgs { kind, eps, weight: runner.vector(weight), bias };
            norm(&args, runner.input(x, out)(t), row);
        });
        self.put(out, buffer);
    }

    fn matmul(
        &mut self,
        plan: &Plan,
        batch: &Batch<'_>,
        (weight, bias): (WeightId, Option<WeightId>),
        residual: Option<BufferId>,
        x: BufferId,
        out: BufferId,
    ) {
        let tokens = self.rows(out, batch);
        self.quantize(weight, x, batch);
        let mut buffer = self.take(out);
        let operands = Operands {
            weight: plan.weight(weight),
            packed: self.packed.of(weight),
            expert: 0,
            tokens,
            x: &self.buffers[x.index()],
            quantized: &self.quantized,
        };
        let residual = match residual {
            None => Residual::None,
            Some(id) if id == out => Residual::Out,
            Some(id) => Residual::Rows(&self.buffers[id.index()]),
        };
        let bias = bias.map(|id| self.vectors[id.index()].as_slice());
        matrix!(self).multiply(operands, bias, residual, &mut buffer);
        self.put(out, buffer);
    }

    fn select(&mut self, plan: &Plan, op: &Op, batch: &Batch<'_>) {
        let Op::SelectPages { q, slot, n_heads, mask, pages, out } = *op else { return };
        let cache = &mut self.caches[slot.index()];
        for sequence in batch.sequences {
            cache.refresh_bounds(sequence, batch.cells);
        }
        let args = Attend {
            q: &self.buffers[q.index()],
            n_heads,
            scale: 1.0,
            softcap: None,
            rule: plan.masks[mask.index()],
            selection: None,
            sink_scores: None,
            cache: &self.caches[slot.index()],
            batch,
            axes: plan.axes,
            spans: &self.spans,
        };
        let selection = &mut self.selections[out.index()];
        selection.n_kv_heads = plan.kv[slot.index()].n_kv_heads;
        selection.words = self.sizes.pages().div_ceil(64);
        let words = selection.words;
        let select = self.picked.select;
        let per_token = selection.n_kv_heads * words;
        let grid = Grid::new(&mut selection.bits, batch.tokens.len(), per_token, 1, words);
        self.pool.run(&mut self.scratch, grid, |scratch, _, mut tile| {
            let (t, head) = (tile.rows().start, tile.cols().start / words);
            select(&args, (t, head), pages, scratch, tile.row(t));
        });
        if let Some(observer) = &mut self.observer {
            let used = &self.selections[out.index()].bits[..batch.tokens.len() * per_token];
            for (i, word) in used.iter().enumerate() {
                let chosen = (0..64).filter(|bit| word >> bit & 1 == 1);
                chosen.for_each(|bit| observer.chosen(i % words * 64 + bit));
            }
        }
    }

    fn attend(&mut self, plan: &Plan, op: &Op, batch: &Batch<'_>) {
        let Op::Attend { q, slot, n_heads, scale, softcap, mask, selection, sink_scores, out } = *op else {
            return;
        };
        let mut buffer = self.take(out);
        let args = Attend {
            q: &self.buffers[q.index()],
            n_heads,
            scale,
            softcap,
            rule: plan.masks[mask.index()],
            selection: selection.map(|id| &self.selections[id.index()]),
            sink_scores: sink_scores.map(|id| self.vectors[id.index()].as_slice()),
            cache: &self.caches[slot.index()],
            batch,
            axes: plan.axes,
            spans: &self.spans,
        };
        self.partial.attend(self.picked.attend, &args, &self.pool, &mut self.scratch, &mut buffer);
        self.put(out, buffer);
    }
}

/// Room for the queries of the caches that can be folded.
fn queries(plan: &Plan) -> Result<Vec<Option<Queries>>> {
    let mut queries: Vec<Option<Queries>> = plan.kv.iter().map(|_| None).collect();
    for step in &plan.steps {
        if let Op::QueryStore { q, slot, scale, .. } = step.op {
            let width = plan.buffer(q).width;
            queries[slot.index()] = Some(Queries { rows: zeroed(PAGE_CELLS * width)?, width, scale });
        }
    }
    Ok(queries)
}
