//! How fast a device multiplies: the speed of reading prompts, as memory is that of writing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cchaha_plan::{
    Backend, Batch, BufferId, BufferSpec, Bytes, Cells, Format, Limits, Op, Plan, Rows, Shape, Step, Weight,
    WeightId,
};

use crate::error::Result;

/// Tokens of a batch, and rows and columns of a matrix of our own.
const TOKENS: usize = 64;
const SIZE: usize = 1024;

/// A run should take about this long to be timed well.
const ENOUGH: Duration = Duration::from_millis(50);

/// Products (of a weight and an activation, with their sum) in a second, for 8-bit weights and 64 tokens at a time.
///
/// # Errors
/// Those of the back end.
pub fn products_per_s(backend: &dyn Backend) -> Result<f64> {
    // Q8_0: a half float 1.0, then 32 integers.
    let block = |i: usize| [0, 0x3C].into_iter().chain((0..32).map(move |j| ((i * 31 + j * 17) % 255) as u8));
    let matrix: Vec<u8> = (0..SIZE * SIZE / 32).flat_map(block).collect();
    let matrix = weight("matrix", Format::Q8_0, Shape::matrix(SIZE, SIZE), matrix);
    let one = product_seconds(backend, std::slice::from_ref(&matrix), TOKENS)?;
    let repeats = (ENOUGH.as_secs_f64() / one).clamp(1.0, 256.0) as usize;
    let all = if repeats > 1 { product_seconds(backend, &vec![matrix; repeats], TOKENS)? } else { one };
    Ok((repeats * TOKENS * SIZE * SIZE) as f64 / all)
}

/// Seconds the products of these matrices with `tokens` tokens (1 to 64, which are only read where there are more than one) take one after
/// the other: the shortest of four runs, the first of which is to warm up.
///
/// # Errors
/// Those of the back end, and [`crate::ErrorKind::Model`] where a weight is no matrix.
pub fn product_seconds(backend: &dyn Backend, matrices: &[Weight], tokens: usize) -> Result<f64> {
    let mut runner =
        backend.prepare(Arc::new(plan(matrices)), Limits { cells: TOKENS, batch: TOKENS, logits: 1 })?;
    let mut cells = Cells::new(TOKENS);
    let ids: Vec<u32> = (0..tokens as u32).collect();
    let positions: Vec<i32> = (0..tokens as i32).collect();
    cells.pos[..tokens].copy_from_slice(&positions);
    let pages: Vec<u32> = (0..(TOKENS / cchaha_plan::PAGE_CELLS) as u32).collect();
    let batch = Batch {
        tokens: &ids,
        positions: &positions,
        sequence: &vec![0; tokens],
        cell: &ids,
        logits: &[0],
        coarse: &vec![tokens > 1; tokens],
        sequences: &[&pages],
        cells: &cells,
    };
    let mut shortest = f64::INFINITY;
    for _ in 0..4 {
        let started = Instant::now();
        runner.run(&batch)?;
        shortest = shortest.min(started.elapsed().as_secs_f64());
    }
    Ok(shortest.max(1e-9))
}

fn weight(name: &str, format: Format, shape: Shape, bytes: Vec<u8>) -> Weight {
    Weight { name: name.into(), format, shape, bytes: Bytes::from(bytes) }
}

/// For each width of rows among the matrices, embeds the tokens in it; then multiplies.
fn plan(matrices: &[Weight]) -> Plan {
    let mut plan = Plan { hands_on: true, ..Plan::new("probe", TOKENS, TOKENS) };
    let mut ops = Vec::new();
    // Buffers by their width: of activations, and of results.
    let (mut inputs, mut outputs) = (BTreeMap::new(), BTreeMap::new());
    let buffer = |plan: &mut Plan, width, rows| {
        plan.buffers.push(BufferSpec { name: "probe", width, rows });
        BufferId(plan.buffers.len() as u32 - 1)
    };
    for matrix in matrices {
        let Shape { rows, cols, .. } = matrix.shape;
        let x = *inputs.entry(cols).or_insert_with(|| {
            let value = |i| ((i * 37) % 101) as f32 / 50.0 - 1.0;
            let table = (0..TOKENS * cols).flat_map(|i| value(i).to_le_bytes()).collect();
            plan.weights.push(weight("inputs", Format::F32, Shape::matrix(TOKENS, cols), table));
            let (table, out) =
                (WeightId(plan.weights.len() as u32 - 1), buffer(&mut plan, cols, Rows::Tokens));
            ops.push(Op::Embed { table, scale: 1.0, out });
            out
        });
        let out = *outputs.entry(rows).or_insert_with(|| buffer(&mut plan, rows, Rows::Tokens));
        plan.weights.push(matrix.clone());
        let weight = WeightId(plan.weights.len() as u32 - 1);
        ops.push(Op::MatMul { weight, bias: None, residual: None, x, out });
    }
    if let Some((&width, &x)) = outputs.first_key_value() {
        plan.logits = buffer(&mut plan, width, Rows::Logits);
        ops.push(Op::TakeRows { x, out: plan.logits });
    }
    plan.steps = ops.into_iter().map(|op| Step { op, layer: None }).collect();
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use cchaha_kernels::{Cpu, CpuOptions};

    #[test]
    fn the_processor_multiplies_at_some_speed() {
        let cpu = Cpu::new(CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap();
        let rate = products_per_s(&cpu).unwrap();
        assert!((1e7..1e14).contains(&rate), "{rate} products per second");
    }

    #[test]
    fn matrices_of_several_shapes_are_timed_together() {
        let cpu = Cpu::new(CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap();
        let matrix =
            |rows, cols| weight("matrix", Format::F32, Shape::matrix(rows, cols), vec![0; rows * cols * 4]);
        let matrices = [matrix(32, 64), matrix(64, 32), matrix(32, 32)];
        for tokens in [1, TOKENS] {
            let seconds = product_seconds(&cpu, &matrices, tokens).unwrap();
            assert!(seconds.is_finite() && seconds > 0.0);
        }
        let error = product_seconds(&cpu, &[], 1).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Model);
    }
}
