//! How fast a device multiplies: the speed of reading prompts, as memory is that of writing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cchaha_plan::{
    Backend, Batch, BufferId, BufferSpec, Bytes, Cells, Format, Limits, Op, Plan, Rows, Shape, Step, Weight,
    WeightId,
};

use crate::error::Result;

/// Tokens, and rows and columns of the matrix.
const TOKENS: usize = 64;
const SIZE: usize = 1024;

/// A run should take about this long to be timed well.
const ENOUGH: Duration = Duration::from_millis(50);

/// Products (of a weight and an activation, with their sum) in a second, for 8-bit weights and 64 tokens at a time.
///
/// # Errors
/// Those of the back end.
pub fn products_per_s(backend: &dyn Backend) -> Result<f64> {
    let one = seconds(backend, 1)?;
    let repeats = (ENOUGH.as_secs_f64() / one).clamp(1.0, 256.0) as usize;
    let all = if repeats > 1 { seconds(backend, repeats)? } else { one };
    Ok((repeats * TOKENS * SIZE * SIZE) as f64 / all)
}

/// The shortest of three runs of `repeats` products.
fn seconds(backend: &dyn Backend, repeats: usize) -> Result<f64> {
    let mut runner =
        backend.prepare(Arc::new(plan(repeats)), Limits { cells: TOKENS, batch: TOKENS, logits: 1 })?;
    let mut cells = Cells::new(TOKENS);
    let ids: Vec<u32> = (0..TOKENS as u32).collect();
    let positions: Vec<i32> = (0..TOKENS as i32).collect();
    cells.pos[..TOKENS].copy_from_slice(&positions);
    let pages: Vec<u32> = (0..(TOKENS / cchaha_plan::PAGE_CELLS) as u32).collect();
    let batch = Batch {
        tokens: &ids,
        positions: &positions,
        sequence: &[0; TOKENS],
        cell: &ids,
        logits: &[0],
        coarse: &[true; TOKENS],
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

fn plan(repeats: usize) -> Plan {
    let table: Vec<u8> =
        (0..TOKENS * SIZE).flat_map(|i| (((i * 37) % 101) as f32 / 50.0 - 1.0).to_le_bytes()).collect();
    // Q8_0: a half float 1.0, then 32 integers.
    let block = |i: usize| [0, 0x3C].into_iter().chain((0..32).map(move |j| ((i * 31 + j * 17) % 255) as u8));
    let matrix: Vec<u8> = (0..SIZE * SIZE / 32).flat_map(block).collect();
    let weight = |name: &str, format, rows, bytes: Vec<u8>| Weight {
        name: name.into(),
        format,
        shape: Shape::matrix(rows, SIZE),
        bytes: Bytes::from(bytes),
    };
    let [x, y, out] = [0, 1, 2].map(BufferId);
    let buffer = |rows| BufferSpec { name: "probe", width: SIZE, rows };
    let mut ops = vec![Op::Embed { table: WeightId(0), scale: 1.0, out: x }];
    for _ in 0..repeats {
        ops.push(Op::MatMul { weight: WeightId(1), bias: None, residual: None, x, out: y });
    }
    ops.push(Op::TakeRows { x: y, out });
    Plan {
        steps: ops.into_iter().map(|op| Step { op, layer: None }).collect(),
        buffers: vec![buffer(Rows::Tokens), buffer(Rows::Tokens), buffer(Rows::Logits)],
        weights: vec![
            weight("inputs", Format::F32, TOKENS, table),
            weight("matrix", Format::Q8_0, SIZE, matrix),
        ],
        logits: out,
        hands_on: true,
        ..Plan::new("probe", TOKENS, TOKENS)
    }
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
}
