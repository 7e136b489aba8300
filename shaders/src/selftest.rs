//! The check at load: every matrix kernel that was picked for a format multiplies a few rows of the model's own weights, and is
//! compared with a reference back end. One that is wrong on this device is set aside, with a message, and the next row serves.

use std::sync::Arc;

use cchaha_plan::{
    Activation, Backend, Batch, BufferId, BufferSpec, Bytes, Cells, Error, ErrorKind, Format, Limits, Op,
    Plan, Result, Rows, Shape, Step, Weight, WeightId,
};

use crate::gpu::Gpu;
use crate::lower::CLASSES;
use crate::runner::GpuRunner;

/// Rows of a weight that are tried.
const ROWS: usize = 16;

/// Rows of activations for each of [`CLASSES`].
const TOKENS: [usize; 3] = [1, 5, 17];

/// How far a result may be off, as a part of the largest: a broken driver is off by far more, and rounding by far less.
const TOLERANCE: f32 = 1e-3;

/// Checks what `plan` will use; gives back a line for every row set aside.
///
/// # Errors
/// [`ErrorKind::Device`] where no row is left for a format, and those of the device.
pub(crate) fn check(gpu: &Gpu, plan: &Plan, reference: &dyn Backend) -> Result<Vec<String>> {
    let mut messages = Vec::new();
    let mut seen: Vec<(&str, Format)> = Vec::new();
    for step in &plan.steps {
        let (op, weight) = match step.op {
            Op::MatMul { weight, .. } => ("MatMul", weight),
            Op::GatedMatMul { gate, .. } => ("GatedMatMul", gate),
            _ => continue,
        };
        let format = plan.weight(weight).format;
        if seen.contains(&(op, format)) {
            continue;
        }
        seen.push((op, format));
        for (class, tokens) in CLASSES.into_iter().zip(TOKENS) {
            check_class(gpu, plan.weight(weight), op, class, tokens, reference, &mut messages)?;
        }
    }
    Ok(messages)
}

fn check_class(
    gpu: &Gpu,
    weight: &Weight,
    op: &'static str,
    class: usize,
    tokens: usize,
    reference: &dyn Backend,
    messages: &mut Vec<String>,
) -> Result<()> {
    let format = weight.format;
    let plan = Arc::new(trial(op, weight, tokens));
    plan.validate()?;
    let limits = Limits { cells: 32, batch: tokens, logits: tokens };
    let want = run(&mut *reference.prepare(plan.clone(), limits)?, tokens)?;
    let largest = want.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    while let Some(kernel) = gpu.kernel(op, Some(format), class) {
        let got = run(&mut GpuRunner::new(gpu, plan.clone(), limits)?, tokens)?;
        let worst = got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
        // A NaN is no number that is small enough.
        if got.iter().all(|value| value.is_finite()) && worst <= TOLERANCE * largest {
            return Ok(());
        }
        gpu.quarantine(kernel.name, format);
        messages.push(format!(
            "GPU kernel {} computes {format} wrongly on {} (off by {:.1e} of the largest value) and is set aside",
            kernel.name,
            gpu.adapter().name,
            worst / largest
        ));
    }
    // Where no row is left for a fusion, its parts serve.
    if op == "MatMul" {
        return Err(Error::new(
            ErrorKind::Device,
            format!("no GPU kernel computes {format} products correctly on {}", gpu.adapter().name),
        ));
    }
    Ok(())
}

/// `tokens` rows of random activations against the first rows of a weight. Token `t` brings row `t`.
fn trial(op: &str, weight: &Weight, tokens: usize) -> Plan {
    let cols = weight.shape.cols;
    let rows = ROWS.min(weight.shape.rows);
    let vocab = rows.max(tokens);
    let held = weight.bytes.slice(0..rows * weight.row_bytes()).expect("invariant: a weight holds its rows");
    let bytes = held.as_slice().iter().copied().cycle().take(vocab * weight.row_bytes()).collect::<Vec<u8>>();
    let mut seed = 1u32;
    let random = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
    });
    let inputs: Vec<u8> = random.take(vocab * cols).flat_map(f32::to_le_bytes).collect();
    let held = |name: &str, format, bytes: Vec<u8>| Weight {
        name: name.into(),
        format,
        shape: Shape::matrix(vocab, cols),
        bytes: Bytes::from(bytes),
    };
    let weights = vec![held("inputs", Format::F32, inputs), held("weight", weight.format, bytes)];
    let buffer = |width, rows| BufferSpec { name: "b", width, rows };
    let buffers = vec![
        buffer(cols, Rows::Tokens),
        buffer(cols, Rows::Logits),
        buffer(vocab, Rows::Logits),
        buffer(vocab, Rows::Logits),
    ];
    let [input, taken, scratch, out] = [0, 1, 2, 3].map(BufferId);
    let product = match op {
        "GatedMatMul" => Op::GatedMatMul {
            gate: WeightId(1),
            up: WeightId(1),
            activation: Activation::Silu,
            x: taken,
            scratch,
            out,
        },
        _ => Op::MatMul { weight: WeightId(1), bias: None, residual: None, x: taken, out },
    };
    let steps = [
        Op::Embed { table: WeightId(0), scale: 1.0, out: input },
        Op::TakeRows { x: input, out: taken },
        product,
    ];
    Plan {
        architecture: "self-test".into(),
        steps: steps.into_iter().map(|op| Step { op, layer: None }).collect(),
        buffers,
        weights,
        kv: Vec::new(),
        ropes: Vec::new(),
        masks: Vec::new(),
        selections: 0,
        axes: 1,
        logits: out,
        vocab,
        context: 32,
    }
}

fn run(runner: &mut dyn cchaha_plan::Runner, tokens: usize) -> Result<Vec<f32>> {
    let mut cells = Cells::new(32);
    let ids: Vec<u32> = (0..tokens as u32).collect();
    let positions: Vec<i32> = (0..tokens as i32).collect();
    cells.pos[..tokens].copy_from_slice(&positions);
    let batch = Batch {
        tokens: &ids,
        positions: &positions,
        sequence: &vec![0; tokens],
        cell: &ids,
        logits: &ids,
        sequences: &[&[0, 1]],
        cells: &cells,
    };
    runner.run(&batch).map(<[f32]>::to_vec)
}
