//! Mixture of experts: route every token, then run each expert once on the tokens that chose it.

use cchaha_plan::{Activation, Batch, Observer, Result, Routing, Rows, Weight, WeightId};

use super::matrix::{Matrix, Operands};
use crate::activations::Activations;
use crate::generic::rows::top_k;
use crate::kv::zeroed;
use crate::product::Residual;

/// Buffers of an Experts step, allocated for the largest of the plan.
#[derive(Debug, Default)]
pub(crate) struct ExpertBuffers {
    /// Chosen experts and their weights, `[tokens, top_k]`.
    indices: Vec<f32>,
    weights: Vec<f32>,
    /// Tokens of the expert at hand and the weight of each.
    members: Vec<(u32, f32)>,
    /// Their rows of `x`, then the expert's output, `[members, cols]`.
    rows: Vec<f32>,
    /// `[members, rows]`.
    gate: Vec<f32>,
    hidden: Vec<f32>,
}

/// Sizes of [`ExpertBuffers`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ExpertSizes {
    pub(crate) top_k: usize,
    pub(crate) cols: usize,
    pub(crate) rows: usize,
}

impl ExpertSizes {
    pub(crate) fn bytes(self, tokens: usize) -> usize {
        4 * tokens * (2 * self.top_k + 2 * usize::from(self.top_k > 0) + self.cols + 2 * self.rows)
    }
}

impl ExpertBuffers {
    pub(crate) fn new(sizes: ExpertSizes, tokens: usize) -> Result<ExpertBuffers> {
        Ok(ExpertBuffers {
            indices: zeroed(tokens * sizes.top_k)?,
            weights: zeroed(tokens * sizes.top_k)?,
            members: Vec::with_capacity(if sizes.top_k > 0 { tokens } else { 0 }),
            rows: zeroed(tokens * sizes.cols)?,
            gate: zeroed(tokens * sizes.rows)?,
            hidden: zeroed(tokens * sizes.rows)?,
        })
    }
}

/// One Experts step on one batch.
#[derive(Debug)]
pub(crate) struct Experts<'a> {
    /// Gate, up and down, for the observer.
    pub(crate) ids: [WeightId; 3],
    /// `[tokens, n_experts]`.
    pub(crate) router: &'a [f32],
    pub(crate) routing: Routing,
    pub(crate) top_k: usize,
    pub(crate) gate: &'a Weight,
    pub(crate) up: &'a Weight,
    pub(crate) down: &'a Weight,
    /// Gate, up and down, where they are packed.
    pub(crate) packed: [Option<&'a [u8]>; 3],
    pub(crate) activation: Activation,
    /// `[tokens, cols]`.
    pub(crate) x: &'a [f32],
    pub(crate) tokens: usize,
    /// Of this batch.
    pub(crate) batch: &'a Batch<'a>,
    pub(crate) rows: Rows,
}

impl Experts<'_> {
    /// Writes `out`, `[tokens, cols]`. A token sums its experts in ascending order, whoever else is in the batch.
    pub(crate) fn run(
        &self,
        matrix: &mut Matrix<'_>,
        quantized: &mut Activations,
        buffers: &mut ExpertBuffers,
        out: &mut [f32],
        mut observer: Option<&mut (dyn Observer + 'static)>,
    ) {
        let [gate_id, up_id, down_id] = self.ids;
        let (cols, rows) = (self.gate.shape.cols, self.gate.shape.rows);
        let n_experts = self.gate.shape.experts;
        for t in 0..self.tokens {
            let chosen = t * self.top_k..(t + 1) * self.top_k;
            let scores = &self.router[t * n_experts..][..n_experts];
            route(self.routing, scores, &mut buffers.indices[chosen.clone()], &mut buffers.weights[chosen]);
        }
        out[..self.tokens * cols].fill(0.0);
        let coarse = |&(t, _): &(u32, f32)| self.batch.is_coarse(self.rows, t as usize);
        for expert in 0..n_experts {
            buffers.members.clear();
            for (slot, &index) in buffers.indices[..self.tokens * self.top_k].iter().enumerate() {
                if index as usize == expert {
                    buffers.members.push(((slot / self.top_k) as u32, buffers.weights[slot]));
                }
            }
            let n = buffers.members.len();
            if n == 0 {
                continue;
            }
            for (row, &(t, _)) in buffers.rows.chunks_exact_mut(cols).zip(&buffers.members) {
                row.copy_from_slice(&self.x[t as usize * cols..][..cols]);
            }
            if let Some(observer) = &mut observer {
                observer.input(gate_id, expert, &buffers.rows[..n * cols]);
                observer.input(up_id, expert, &buffers.rows[..n * cols]);
            }
            for weight in [self.gate, self.up] {
                if let Some(quantize) = matrix.quantizer(weight) {
                    let coarse = buffers.members.iter().map(coarse);
                    matrix.quantize(quantize, &buffers.rows, cols, coarse, quantized);
                    break;
                }
            }
            let [gate, up, down] = self.packed;
            let input =
                |weight, packed| Operands { weight, packed, expert, tokens: n, x: &buffers.rows, quantized };
            matrix.gated(
                input(self.gate, gate),
                input(self.up, up),
                self.activation,
                &mut buffers.gate[..n * rows],
                &mut buffers.hidden[..n * rows],
            );
            if let Some(observer) = &mut observer {
                observer.input(down_id, expert, &buffers.hidden[..n * rows]);
            }
            if let Some(quantize) = matrix.quantizer(self.down) {
                let coarse = buffers.members.iter().map(coarse);
                matrix.quantize(quantize, &buffers.hidden, rows, coarse, quantized);
            }
            let down = Operands {
                weight: self.down,
                packed: down,
                expert,
                tokens: n,
                x: &buffers.hidden,
                quantized,
            };
            matrix.multiply(down, None, Residual::None, &mut buffers.rows[..n * cols]);
            for (row, &(t, weight)) in buffers.rows.chunks_exact(cols).zip(&buffers.members) {
                for (out, y) in out[t as usize * cols..][..cols].iter_mut().zip(row) {
                    *out += weight * y;
                }
            }
        }
    }
}

/// Chooses `indices.len()` experts and their weights.
fn route(routing: Routing, scores: &[f32], indices: &mut [f32], weights: &mut [f32]) {
    top_k(scores, weights, indices);
    // The softmax over all experts, restricted to the chosen and divided by their sum, is the softmax over the chosen.
    match routing {
        Routing::SoftmaxThenTopKRenormalized | Routing::TopKThenSoftmax => {
            let top = weights[0];
            weights.iter_mut().for_each(|w| *w = (*w - top).exp());
            let sum: f32 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w /= sum);
        }
    }
}
