//! What a step costs, for `plan`, rooflines and profiles.

use crate::{Op, Plan, Rows, Step};

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

    /// Cost of one batch: `tokens` tokens of a sequence behind `depth` others, of which `logits` rows of logits are wanted. A token sees
    /// those before it, at most `cells`. Keys and values count once, as the last token reads them: those the others read are among them,
    /// but for what a window has left behind.
    pub fn batch_cost(&self, depth: usize, tokens: usize, cells: usize, logits: usize) -> Cost {
        let mut sum = Cost::default();
        for Step { op, .. } in &self.steps {
            match *op {
                Op::Attend { .. } => {
                    let mut last = Cost::default();
                    for token in 0..tokens {
                        last = self.cost(op, 1, (depth + token + 1).min(cells));
                        sum.flops += last.flops;
                    }
                    sum.kv_values += last.kv_values;
                }
                Op::Embed { out: x, .. }
                | Op::MatMul { x, .. }
                | Op::GatedMatMul { x, .. }
                | Op::Experts { x, .. } => {
                    let rows = match self.buffer(x).rows {
                        Rows::Tokens => tokens,
                        Rows::Logits => logits,
                    };
                    if rows > 0 {
                        sum += self.cost(op, rows, 0);
                    }
                }
                _ => {}
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        BufferId, BufferSpec, Bytes, Format, KvSlot, KvSpec, MaskId, MaskRule, Shape, Weight, WeightId,
    };

    /// Embeds, multiplies `[4, 8]`, attends with two heads of 4 on one, and multiplies `[16, 8]` for the logits.
    fn plan() -> Plan {
        let weight = |rows| Weight {
            name: "w".into(),
            format: Format::F32,
            shape: Shape::matrix(rows, 8),
            bytes: Bytes::from(vec![0; rows * 8 * 4]),
        };
        let buffer = |width, rows| BufferSpec { name: "b", width, rows };
        let [x, y, rows, logits] = [0, 1, 2, 3].map(BufferId);
        let matmul =
            |weight, x, out| Op::MatMul { weight: WeightId(weight), bias: None, residual: None, x, out };
        let attend = Op::Attend {
            q: x,
            slot: KvSlot(0),
            n_heads: 2,
            scale: 1.0,
            softcap: None,
            mask: MaskId(0),
            selection: None,
            sink_scores: None,
            out: x,
        };
        let ops = vec![
            Op::Embed { table: WeightId(0), scale: 1.0, out: x },
            matmul(1, x, y),
            attend,
            Op::TakeRows { x, out: rows },
            matmul(0, rows, logits),
        ];
        Plan {
            steps: ops.into_iter().map(|op| Step { op, layer: None }).collect(),
            buffers: vec![
                buffer(8, Rows::Tokens),
                buffer(4, Rows::Tokens),
                buffer(8, Rows::Logits),
                buffer(16, Rows::Logits),
            ],
            weights: vec![weight(16), weight(4)],
            kv: vec![KvSpec { n_kv_heads: 1, head_dim: 4 }],
            masks: vec![MaskRule::CAUSAL],
            logits,
            ..Plan::new("test", 16, 64)
        }
    }

    #[test]
    fn a_batch_reads_weights_once_and_its_tokens_see_those_before_them() {
        let cost = plan().batch_cost(10, 3, 100, 1);
        // Products for 3 tokens and one row of logits; 11, 12 and 13 cells with 4 operations for each of 8 values.
        assert_eq!(cost.flops, (2 * 3 * 4 * 8 + 2 * 16 * 8 + 4 * 8 * (11 + 12 + 13)) as f64);
        // Three rows of the table, and both matrices.
        assert_eq!(cost.weight_bytes, (4 * 8 * (3 + 4 + 16)) as f64);
        assert_eq!(cost.kv_values, (2 * 4 * 13) as f64);
        let no_logits = plan().batch_cost(10, 3, 12, 0);
        assert_eq!(no_logits.flops, (2 * 3 * 4 * 8 + 4 * 8 * (11 + 12 + 12)) as f64);
        assert_eq!(no_logits.weight_bytes, (4 * 8 * (3 + 4)) as f64);
        assert_eq!(no_logits.kv_values, (2 * 4 * 12) as f64);
    }
}
