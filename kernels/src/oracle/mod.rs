//! The oracle: what every op means, spelled out in f64.
//!
//! It is the specification that every kernel is tested against, so it is naive on purpose: activations, KV cache, rotary
//! tables and logits are f64, weights are dequantized exactly, fused ops run as their [`Op::expand`]ed parts,
//! visibility is [`cchaha_plan::MaskRule::visible`] and nothing else, and every op makes a fresh matrix from the ones it reads. The one
//! concession to size: a weight row is dequantized once per batch, and rows are spread over threads. No result
//! depends on how many threads there are.
//!
//! Buffers and KV cells start as NaN, so that a plan which reads what it never wrote shows. Unlike other
//! runners this one allocates while it runs.
//!
//! Shapes in comments: `t` tokens or logits rows, `h` query heads, `g` KV heads, `d` values per head, `c` cells.

mod attention;
mod matrix;
mod rows;

use std::sync::Arc;

use cchaha_plan::{
    Backend, Batch, BufferId, Error, ErrorKind, Footprint, Limits, Op, PAGE_CELLS, Plan, Result, Rows,
    Runner, WeightId,
};

use crate::formats;
use attention::{KvCache, Queries, Selection};
use matrix::{Matrix, Threads};

/// The reference back end. See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Oracle {
    /// Threads over which rows are spread, at least 1.
    pub threads: usize,
}

impl Default for Oracle {
    /// One thread per core.
    fn default() -> Oracle {
        Oracle { threads: std::thread::available_parallelism().map_or(1, usize::from) }
    }
}

impl Oracle {
    /// [`Backend::prepare`] with the concrete type, for [`OracleRunner::logits_f64`].
    ///
    /// # Errors
    /// Where the plan is inconsistent or memory does not suffice.
    pub fn runner(&self, plan: Arc<Plan>, limits: Limits) -> Result<OracleRunner> {
        plan.validate()?;
        let cells = limits.cells.next_multiple_of(PAGE_CELLS);
        let kv = plan.kv.iter().map(|&spec| KvCache::new(spec, cells)).collect::<Result<_>>()?;
        let buffers = plan.buffers.iter().map(|spec| Matrix::nan(0, spec.width)).collect();
        let selections = vec![Selection::default(); plan.selections];
        let queries = vec![None; plan.kv.len()];
        let threads = Threads(self.threads.max(1));
        Ok(OracleRunner { plan, limits, buffers, kv, selections, queries, logits: Vec::new(), threads })
    }
}

impl Backend for Oracle {
    fn name(&self) -> String {
        format!("oracle (f64, {} threads)", self.threads.max(1))
    }

    fn footprint(&self, plan: &Plan, limits: &Limits) -> Footprint {
        let f64_bytes = size_of::<f64>() as u64;
        let cells = limits.cells.next_multiple_of(PAGE_CELLS) as u64;
        let values: u64 = plan
            .buffers
            .iter()
            .map(|buffer| match buffer.rows {
                Rows::Tokens => buffer.width as u64 * limits.batch as u64,
                Rows::Logits => buffer.width as u64 * limits.logits as u64,
            })
            .sum();
        let logits_bytes = (limits.logits * plan.outputs() * size_of::<f32>()) as u64;
        Footprint {
            kv_bytes: cells * plan.kv_values_per_cell() as u64 * f64_bytes,
            buffer_bytes: values * f64_bytes + logits_bytes,
        }
    }

    fn prepare(&self, plan: Arc<Plan>, limits: Limits) -> Result<Box<dyn Runner>> {
        Ok(Box::new(self.runner(plan, limits)?))
    }
}

/// A plan prepared by the [`Oracle`].
pub struct OracleRunner {
    plan: Arc<Plan>,
    limits: Limits,
    buffers: Vec<Matrix>,
    kv: Vec<KvCache>,
    selections: Vec<Selection>,
    queries: Vec<Option<Queries>>,
    logits: Vec<f32>,
    threads: Threads,
}

impl Runner for OracleRunner {
    fn run(&mut self, batch: &Batch<'_>) -> Result<&[f32]> {
        batch.validate(&self.plan, &self.limits)?;
        let plan = self.plan.clone();
        for (buffer, spec) in self.buffers.iter_mut().zip(&plan.buffers) {
            let rows = match spec.rows {
                Rows::Tokens => batch.tokens.len(),
                Rows::Logits => batch.logits.len(),
            };
            *buffer = Matrix::nan(rows, spec.width);
        }
        for step in &plan.steps {
            self.step(&step.op, batch);
        }
        self.logits = self.logits_f64().iter().map(|&logit| logit as f32).collect();
        Ok(&self.logits)
    }

    fn fold(&mut self, pages: &[u32], old: usize, sinks: usize, keep: usize) -> Result<()> {
        for (kv, queries) in self.kv.iter_mut().zip(&self.queries) {
            queries.iter().for_each(|queries| kv.fold(queries, pages, old, sinks, keep));
        }
        Ok(())
    }
}

impl OracleRunner {
    /// The logits of the last batch before they were rounded to f32, `[batch.logits.len(), vocab]`.
    pub fn logits_f64(&self) -> &[f64] {
        &self.buffer(self.plan.logits).values
    }

    /// The values of any buffer after the last batch, `[t, width]`.
    pub fn buffer_f64(&self, id: BufferId) -> &[f64] {
        &self.buffer(id).values
    }

    fn buffer(&self, id: BufferId) -> &Matrix {
        &self.buffers[id.index()]
    }

    fn store(&mut self, id: BufferId, matrix: Matrix) {
        self.buffers[id.index()] = matrix;
    }

    /// One row of a weight, exact. Rows of all experts are counted through.
    fn weight_row(&self, id: WeightId, row: usize) -> Vec<f64> {
        let weight = self.plan.weight(id);
        let bytes = &weight.bytes.as_slice()[row * weight.row_bytes()..][..weight.row_bytes()];
        let mut values = vec![0.0; weight.shape.cols];
        formats::dequantize(weight.format, bytes, &mut values);
        values.into_iter().map(f64::from).collect()
    }

    /// A weight that is a single row: norm weights, biases, sink scores.
    fn vector(&self, id: WeightId) -> Vec<f64> {
        self.weight_row(id, 0)
    }

    /// `out[t, r] = sum_c weight[expert, r, c] * x[t, c]`.
    fn matmul(&self, weight: WeightId, expert: usize, x: &Matrix) -> Matrix {
        let rows = self.plan.weight(weight).shape.rows;
        // [rows, t], so that a thread owns whole rows.
        let products = self.threads.rows(rows, x.rows, |r, out| {
            let w = self.weight_row(weight, expert * rows + r);
            for (t, out) in out.iter_mut().enumerate() {
                *out = rows::dot(&w, x.row(t));
            }
        });
        Matrix::from_fn(x.rows, rows, |t, r| products.row(r)[t])
    }

    fn step(&mut self, op: &Op, batch: &Batch<'_>) {
        if let Some(parts) = op.expand() {
            for part in &parts {
                self.step(part, batch);
            }
            return;
        }
        match *op {
            Op::Embed { table, scale, out } => {
                let scale = f64::from(scale);
                let rows = batch.tokens.iter().map(|&token| self.weight_row(table, token as usize));
                let values = rows.flatten().map(|value| scale * value).collect();
                self.store(out, Matrix::new(batch.tokens.len(), values));
            }
            Op::Norm { kind, eps, weight, bias, group, x, out } => {
                let (weight, bias) = (self.vector(weight), bias.map(|bias| self.vector(bias)));
                let mut result = self.buffer(x).clone();
                for run in result.values.chunks_exact_mut(group) {
                    rows::norm(kind, f64::from(eps), &weight, bias.as_deref(), run);
                }
                self.store(out, result);
            }
            Op::MatMul { weight, bias, residual, x, out } => {
                let mut result = self.matmul(weight, 0, self.buffer(x));
                if let Some(bias) = bias {
                    let bias = self.vector(bias);
                    result = Matrix::from_fn(result.rows, result.width, |t, r| result.row(t)[r] + bias[r]);
                }
                if let Some(residual) = residual {
                    result = result.zip(self.buffer(residual), |a, b| a + b);
                }
                self.store(out, result);
            }
            Op::Rope { table, head_dim, x } => {
                let (plan, axes) = (self.plan.clone(), self.plan.axes);
                let table = &plan.ropes[table.index()];
                let x = &mut self.buffers[x.index()];
                for (t, positions) in batch.positions.chunks_exact(axes).enumerate() {
                    for head in x.row_mut(t).chunks_exact_mut(head_dim) {
                        rows::rope(table, positions, head);
                    }
                }
            }
            Op::KvStore { slot, k, v } => {
                let (k, v) = (&self.buffers[k.index()], &self.buffers[v.index()]);
                let cache = &mut self.kv[slot.index()];
                for (t, &cell) in batch.cell.iter().enumerate() {
                    cache.store(cell as usize, k.row(t), v.row(t));
                }
            }
            Op::QueryStore { q, slot, n_heads, scale } => {
                let q = &self.buffers[q.index()];
                let empty = || Queries { rows: vec![Vec::new(); PAGE_CELLS], n_heads, scale: scale.into() };
                let queries = self.queries[slot.index()].get_or_insert_with(empty);
                for (t, &cell) in batch.cell.iter().enumerate() {
                    let position = batch.cells.pos[cell as usize] as usize;
                    queries.rows[position % PAGE_CELLS] = q.row(t).to_vec();
                }
            }
            Op::SelectPages { q, slot, n_heads, mask, pages, out } => {
                let mask = &self.plan.masks[mask.index()];
                let cache = &self.kv[slot.index()];
                self.selections[out.index()] = cache.select(self.buffer(q), n_heads, mask, pages, batch);
            }
            Op::Attend { q, slot, n_heads, scale, softcap, mask, selection, sink_scores, out } => {
                let sink_scores = sink_scores.map(|scores| self.vector(scores));
                let attention = attention::Attention {
                    cache: &self.kv[slot.index()],
                    n_heads,
                    scale: f64::from(scale),
                    softcap: softcap.map(f64::from),
                    mask: &self.plan.masks[mask.index()],
                    selection: selection.map(|id| &self.selections[id.index()]),
                    sink_scores: sink_scores.as_deref(),
                };
                let q = self.buffer(q);
                let result =
                    self.threads.rows(q.rows, q.width, |t, out| attention.row(q.row(t), t, batch, out));
                self.store(out, result);
            }
            Op::Activate { activation, x, up, out } => {
                let mut result = self.buffer(x).map(|x| rows::activate(activation, x));
                if let Some(up) = up {
                    result = result.zip(self.buffer(up), |a, up| a * up);
                }
                self.store(out, result);
            }
            Op::Add { a, b, out } => {
                let sum = self.buffer(a).zip(self.buffer(b), |a, b| a + b);
                self.store(out, sum);
            }
            Op::Scale { factor, x } => {
                let scaled = self.buffer(x).map(|x| x * f64::from(factor));
                self.store(x, scaled);
            }
            Op::Softcap { cap, x } => {
                let capped = self.buffer(x).map(|x| rows::softcap(f64::from(cap), x));
                self.store(x, capped);
            }
            Op::TakeRows { x, out } => {
                let x = self.buffer(x);
                let taken =
                    Matrix::from_fn(batch.logits.len(), x.width, |l, i| x.row(batch.logits[l] as usize)[i]);
                self.store(out, taken);
            }
            Op::Experts { router, routing, top_k, gate, up, down, activation, x, out } => {
                let (x, router) = (self.buffer(x), self.buffer(router));
                // chosen[t] = the token's (expert, weight) pairs
                let chosen: Vec<Vec<(usize, f64)>> =
                    (0..x.rows).map(|t| rows::route(routing, top_k, router.row(t))).collect();
                let mut result = Matrix::from_fn(x.rows, x.width, |_, _| 0.0);
                for expert in 0..router.width {
                    let picks: Vec<(usize, f64)> = (0..x.rows)
                        .flat_map(|t| chosen[t].iter().filter(|c| c.0 == expert).map(move |c| (t, c.1)))
                        .collect();
                    let mine = Matrix::from_fn(picks.len(), x.width, |i, c| x.row(picks[i].0)[c]);
                    let hidden = self
                        .matmul(gate, expert, &mine)
                        .map(|x| rows::activate(activation, x))
                        .zip(&self.matmul(up, expert, &mine), |a, up| a * up);
                    let output = self.matmul(down, expert, &hidden);
                    for (i, &(t, weight)) in picks.iter().enumerate() {
                        for (out, value) in result.row_mut(t).iter_mut().zip(output.row(i)) {
                            *out += weight * value;
                        }
                    }
                }
                self.store(out, result);
            }
            Op::TopK { x, k, values, indices } => {
                let x = self.buffer(x);
                let top: Vec<Vec<usize>> = (0..x.rows).map(|t| rows::top_k(x.row(t), k)).collect();
                let found = Matrix::from_fn(x.rows, k, |t, j| x.row(t)[top[t][j]]);
                let places = Matrix::from_fn(x.rows, k, |t, j| top[t][j] as f64);
                self.store(values, found);
                self.store(indices, places);
            }
            Op::GatedMatMul { .. } => unreachable!("Op::expand defines it"),
        }
    }
}

/// A vector of `n` NaNs, or a typed error where memory does not suffice.
fn nans(n: usize) -> Result<Vec<f64>> {
    let mut values = Vec::new();
    values.try_reserve_exact(n).map_err(|_| {
        Error::new(ErrorKind::DoesNotFit, format!("no memory for {n} values of the oracle's KV cache"))
    })?;
    values.resize(n, f64::NAN);
    Ok(values)
}
