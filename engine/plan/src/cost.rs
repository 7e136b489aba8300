//! What a step costs, for `plan`, rooflines and profiles.

use crate::{Op, Plan};

/// Work of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Multiplications and additions, each counted.
    pub flops: f64,
    /// Bytes of weights read once.
    pub weight_bytes: f64,
    /// KV values read, over all tokens.
    pub kv_values: f64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.flops += other.flops;
        self.weight_bytes += other.weight_bytes;
        self.kv_values += other.kv_values;
    }
}

impl Plan {
    /// Cost of `op` for `tokens` tokens (or logits rows) that each see `context` cells. Only matrix products and attention are
    /// counted; the rest is small beside them. Masks that hide cells make the real cost smaller.
    pub fn cost(&self, op: &Op, tokens: usize, context: usize) -> Cost {
        let tokens = tokens as f64;
        let matrix = |id| {
            let weight = self.weight(id);
            (weight.shape, weight.bytes.len() as f64)
        };
        match *op {
            Op::Embed { table, .. } => {
                Cost { weight_bytes: tokens * self.weight(table).row_bytes() as f64, ..Cost::default() }
            }
            Op::MatMul { weight, .. } => {
                let (shape, weight_bytes) = matrix(weight);
                Cost { flops: 2.0 * tokens * (shape.rows * shape.cols) as f64, weight_bytes, kv_values: 0.0 }
            }
            Op::GatedMatMul { .. } => {
                let mut sum = Cost::default();
                for part in op.expand().into_iter().flatten() {
                    sum += self.cost(&part, tokens as usize, context);
                }
                sum
            }
            Op::Experts { top_k, gate, up, down, .. } => {
                let mut sum = Cost::default();
                for id in [gate, up, down] {
                    let (shape, bytes) = matrix(id);
                    let used = (tokens * top_k as f64).min(shape.experts as f64) / shape.experts as f64;
                    sum.weight_bytes += bytes * used;
                    sum.flops += 2.0 * tokens * (top_k * shape.rows * shape.cols) as f64;
                }
                sum
            }
            Op::Attend { slot, n_heads, mask, .. } => {
                let kv = self.kv[slot.index()];
                let window = self.masks[mask.index()].window.map_or(usize::MAX, |w| w as usize);
                let seen = context.min(window) as f64;
                Cost {
                    flops: 4.0 * tokens * seen * (n_heads * kv.head_dim) as f64,
                    weight_bytes: 0.0,
                    kv_values: 2.0 * tokens * seen * (kv.n_kv_heads * kv.head_dim) as f64,
                }
            }
            _ => Cost::default(),
        }
    }
}
