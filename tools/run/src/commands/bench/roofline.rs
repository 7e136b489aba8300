//! What tests and matrix kernels reach of what this processor can do at best ([`Roofs`]).

use std::collections::BTreeMap;

use cchaha::kernels::{Cpu, Roofs, Work};
use cchaha::plan::{Cost, Format, Op, Plan, Weight};
use cchaha::{SessionOptions, product_seconds};
use serde::Serialize;

use super::Test;
use crate::exit::Result;
use crate::output::plural;

/// A test or a kernel: what it computes, and how long that took.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) name: String,
    pub(super) work: Work,
    pub(super) seconds: f64,
}

impl Point {
    pub(super) fn ops_per_s(&self) -> f64 {
        self.work.ops / self.seconds
    }

    /// Where it stands under these roofs, as results have it.
    pub(super) fn under(&self, roofs: Roofs) -> Fields {
        Fields {
            ops_per_byte: self.work.intensity(),
            ops_per_s: self.ops_per_s(),
            read_roof_bytes_per_s: roofs.bytes_per_s,
            multiply_roof_ops_per_s: roofs.ops_per_s,
            roof_fraction: roofs.fraction(self.work, self.seconds),
        }
    }
}

/// What a row of results says of it, after llama-bench's own fields.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Fields {
    ops_per_byte: f64,
    ops_per_s: f64,
    read_roof_bytes_per_s: f64,
    multiply_roof_ops_per_s: f64,
    /// Of the lower of the two.
    pub(super) roof_fraction: f64,
}

/// What a test computes: matrix products and attention, with the weights and the KV cells that every batch reads.
pub(super) fn work(test: &Test, plan: &Plan, options: &SessionOptions) -> Work {
    let cells = options.window.budget.unwrap_or(usize::MAX);
    let mut cost = Cost::default();
    for start in (0..test.prompt).step_by(options.batch) {
        let tokens = options.batch.min(test.prompt - start);
        let logits = usize::from(start + tokens == test.prompt);
        cost += plan.batch_cost(test.depth + start, tokens, cells, logits);
    }
    for token in 0..test.gen_ {
        cost += plan.batch_cost(test.depth + test.prompt + token, 1, cells, 1);
    }
    let value_bytes = if options.exact { 4.0 } else { 2.0 };
    Work { ops: cost.flops, bytes: cost.weight_bytes + value_bytes * cost.kv_values }
}

/// Bytes of matrices of one format that are timed: far more than caches hold.
const ENOUGH_BYTES: usize = 256 << 20;

/// Tokens a kernel is timed with: as one writes, and as one reads a prompt.
const TOKENS: [usize; 2] = [1, 64];

/// The matrix kernels this processor picks for the formats of these weights, each on the model's own matrices of its format.
pub(super) fn kernels(plan: &Plan, cpu: &Cpu) -> Result<Vec<Point>> {
    let mut by_format = BTreeMap::<Format, Vec<Weight>>::new();
    for step in &plan.steps {
        let ids = match step.op {
            Op::MatMul { weight, .. } => vec![weight],
            Op::GatedMatMul { gate, up, .. } => vec![gate, up],
            _ => Vec::new(),
        };
        for weight in ids.into_iter().map(|id| plan.weight(id)) {
            let matrices = by_format.entry(weight.format).or_default();
            if matrices.iter().map(|matrix| matrix.bytes.len()).sum::<usize>() < ENOUGH_BYTES {
                matrices.push(weight.clone());
            }
        }
    }
    let mut points = Vec::new();
    for (format, matrices) in by_format {
        let name = match cpu.kernel("MatMul", Some(format)) {
            Some(kernel) if kernel.formats.len() == 1 => kernel.name.to_owned(),
            Some(kernel) => format!("{} {format}", kernel.name),
            None => format.to_string(),
        };
        let bytes: usize = matrices.iter().map(|matrix| matrix.bytes.len()).sum();
        let weights: usize = matrices.iter().map(|matrix| matrix.shape.rows * matrix.shape.cols).sum();
        for tokens in TOKENS {
            points.push(Point {
                name: format!("{name}, {}", plural(tokens, "token")),
                work: Work { ops: (2 * tokens * weights) as f64, bytes: bytes as f64 },
                seconds: product_seconds(cpu, &matrices, tokens)?,
            });
        }
    }
    Ok(points)
}
