//! The check at load: every matrix kernel that was picked for a format multiplies a few rows of the model's own weights, and is
//! compared with a reference back end. One that is wrong on this device is set aside, with a message, and the next row serves.
//! Then whole layers of the model run on random activations, many tokens, a few and one: that is every other op the model uses.

use std::sync::Arc;

use cchaha_plan::{
    Activation, Backend, Batch, BufferId, BufferSpec, Bytes, Cells, Error, ErrorKind, Format, Limits, Op,
    Plan, Result, Rows, Runner, Shape, Step, Weight, WeightId,
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

/// The same for products of half floats.
const NARROW_TOLERANCE: f32 = 5e-3;

/// The same for what a layer adds: several kernels in a row, and keys and values in 16 bits against f32.
const LAYER_TOLERANCE: f32 = 2e-2;

/// Layers of different kinds that are tried, at most.
const MAX_KINDS: usize = 3;

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
    check_layers(gpu, plan, reference)?;
    Ok(messages)
}

/// Runs one layer of each kind.
fn check_layers(gpu: &Gpu, plan: &Plan, reference: &dyn Backend) -> Result<()> {
    let mut kinds: Vec<Vec<Kind>> = Vec::new();
    for number in 0..plan.layers() {
        let Some((layer, x)) = plan.layer(number) else { continue };
        // Experts whose scores are almost equal may be chosen otherwise by roundings.
        if layer.steps.iter().any(|step| matches!(step.op, Op::Experts { .. })) {
            continue;
        }
        let kind: Vec<Kind> = layer.steps.iter().map(|step| kind(&layer, &step.op)).collect();
        if kinds.contains(&kind) || kinds.len() == MAX_KINDS {
            continue;
        }
        kinds.push(kind);
        let (layer, inputs) = behind_a_table(layer, x, TOKENS.iter().sum());
        let layer = Arc::new(layer);
        layer.validate()?;
        let limits = Limits { cells: 32, batch: TOKENS[2], logits: TOKENS[2] };
        let want = run_line(&mut *reference.prepare(layer.clone(), limits)?, plan.axes)?;
        let got = run_line(&mut GpuRunner::new(gpu, layer, limits)?, plan.axes)?;
        // What the layer adds counts: the input goes through it unchanged.
        let added =
            want.iter().zip(&inputs).map(|(want, x)| (want - x).abs()).fold(f32::MIN_POSITIVE, f32::max);
        let worst = got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
        if !got.iter().all(|value| value.is_finite()) || worst > LAYER_TOLERANCE * added {
            return Err(Error::new(
                ErrorKind::Device,
                format!(
                    "{} computes layer {number} of the model wrongly (off by {:.1e} of what it adds)",
                    gpu.adapter().name,
                    worst / added
                ),
            ));
        }
    }
    Ok(())
}

/// What sets one step apart from another, as far as kernels go.
type Kind = (&'static str, Option<Format>, Option<u32>);

fn kind(plan: &Plan, op: &Op) -> Kind {
    let (weight, mask) = match *op {
        Op::MatMul { weight, .. } | Op::GatedMatMul { gate: weight, .. } => (Some(weight), None),
        Op::Attend { mask, .. } => (None, Some(mask.0)),
        _ => (None, None),
    };
    (op.name(), weight.map(|id| plan.weight(id).format), mask)
}

/// The layer with a table of random values in front of it; token `t` brings row `t`, which is given back too.
fn behind_a_table(mut layer: Plan, x: BufferId, tokens: usize) -> (Plan, Vec<f32>) {
    let width = layer.buffer(x).width;
    let values: Vec<f32> = random().take(tokens * width).collect();
    let table = WeightId(layer.weights.len() as u32);
    layer.weights.push(Weight {
        name: "inputs".into(),
        format: Format::F32,
        shape: Shape::matrix(tokens, width),
        bytes: Bytes::from(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()),
    });
    layer.steps.insert(0, Step { op: Op::Embed { table, scale: 1.0, out: x }, layer: None });
    layer.vocab = tokens;
    (layer, values)
}

/// All rows of one sequence that comes in batches of many, a few and one token.
fn run_line(runner: &mut dyn Runner, axes: usize) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    let mut cells = Cells::new(32);
    for tokens in TOKENS.into_iter().rev() {
        let first = cells.pos.iter().filter(|&&position| position >= 0).count();
        let ids: Vec<u32> = (first..first + tokens).map(|id| id as u32).collect();
        ids.iter().for_each(|&id| cells.pos[id as usize] = id as i32);
        let positions: Vec<i32> = ids.iter().flat_map(|&id| std::iter::repeat_n(id as i32, axes)).collect();
        all.extend_from_slice(runner.run(&Batch {
            tokens: &ids,
            positions: &positions,
            sequence: &vec![0; tokens],
            cell: &ids,
            logits: &(0..tokens as u32).collect::<Vec<_>>(),
            coarse: &[],
            sequences: &[&[0, 1]],
            cells: &cells,
        })?);
    }
    Ok(all)
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
        let tolerance = if kernel.narrows() { NARROW_TOLERANCE } else { TOLERANCE };
        // A NaN is no number that is small enough.
        if got.iter().all(|value| value.is_finite()) && worst <= tolerance * largest {
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
    let inputs: Vec<u8> = random().take(vocab * cols).flat_map(f32::to_le_bytes).collect();
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
        steps: steps.into_iter().map(|op| Step { op, layer: None }).collect(),
        buffers,
        weights,
        logits: out,
        ..Plan::new("self-test", vocab, 32)
    }
}

/// Values from -1 to 1, the same ones every time.
fn random() -> impl Iterator<Item = f32> {
    let mut seed = 1u32;
    std::iter::repeat_with(move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}

fn run(runner: &mut dyn Runner, tokens: usize) -> Result<Vec<f32>> {
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
        coarse: &[],
        sequences: &[&[0, 1]],
        cells: &cells,
    };
    runner.run(&batch).map(<[f32]>::to_vec)
}
