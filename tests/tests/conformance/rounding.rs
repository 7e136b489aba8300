//! Kernels of the GPU that round what they write for the product behind them: the same bits as where what they write goes
//! through memory as f32 and a dispatch of its own rounds it. That the products of rounded values are right is what
//! `matmul.rs` tests.

use cchaha_plan::{Activation, BufferId, Format, MaskRule, NormKind, Op, Rows, Shape};

use crate::gpu::own_gpus;
use crate::model::{Model, Scene};
use crate::random::Random;

/// A case: how many values it gives a token, and the steps that compute them. Gives back the buffer that holds them.
struct Case {
    name: &'static str,
    width: usize,
    build: fn(&mut Model, &mut Random) -> BufferId,
}

/// Distinct tokens.
const VOCAB: usize = 384;

const CASES: [Case; 7] = [
    Case { name: "Norm", width: 96, build: |model, random| norm(model, random, NormKind::Rms) },
    Case { name: "Norm (layer)", width: 96, build: |model, random| norm(model, random, NormKind::Layer) },
    Case {
        name: "Activate",
        width: 160,
        build: |model, random| {
            let x = input(model, random, 160);
            model.step(Op::Activate { activation: Activation::GeluTanh, x, up: None, out: x });
            x
        },
    },
    Case {
        name: "Add",
        width: 96,
        build: |model, random| {
            let [a, b] = [0, 1].map(|_| input(model, random, 96));
            model.step(Op::Add { a, b, out: a });
            a
        },
    },
    Case {
        name: "TakeRows",
        width: 96,
        build: |model, random| {
            let x = input(model, random, 96);
            let out = model.buffer(96, Rows::Logits);
            model.step(Op::TakeRows { x, out });
            out
        },
    },
    Case {
        name: "GatedMatMul",
        width: 160,
        build: |model, random| {
            let x = input(model, random, 64);
            let [gate, up] = [0, 1].map(|_| matrix(model, random, 160, 64));
            let [scratch, out] = [0, 1].map(|_| model.tokens(160));
            model.step(Op::GatedMatMul { gate, up, activation: Activation::Silu, x, scratch, out });
            out
        },
    },
    Case {
        name: "Attend",
        width: 128,
        build: |model, random| {
            let [q, k, v] = [128, 64, 64].map(|width| input(model, random, width));
            let (slot, mask) = (model.slot(2, 32), model.mask(MaskRule::CAUSAL));
            let out = model.tokens(128);
            model.step(Op::KvStore { slot, k, v });
            let (scale, selection, sink_scores) = (0.2, None, None);
            let softcap = None;
            model.step(Op::Attend { q, slot, n_heads: 4, scale, softcap, mask, selection, sink_scores, out });
            out
        },
    },
];

fn input(model: &mut Model, random: &mut Random, width: usize) -> BufferId {
    let values = random.vec(VOCAB * width, |random| random.uniform() * 3.0);
    model.input(width, &values)
}

fn matrix(model: &mut Model, random: &mut Random, rows: usize, cols: usize) -> cchaha_plan::WeightId {
    let bytes = random.blocks(Format::Q8_0, rows * cols / 32);
    model.weight(Format::Q8_0, Shape::matrix(rows, cols), bytes)
}

fn norm(model: &mut Model, random: &mut Random, kind: NormKind) -> BufferId {
    let x = input(model, random, 96);
    let [weight, bias] = [0, 1].map(|_| model.vector(&random.vec(96, Random::uniform)));
    let bias = (kind == NormKind::Layer).then_some(bias);
    let out = model.tokens(96);
    model.step(Op::Norm { kind, eps: 1e-6, weight, bias, group: 96, x, out });
    out
}

/// The product of a buffer with a matrix of its own.
fn multiplied(model: &mut Model, x: BufferId) -> BufferId {
    let spec = model.0.buffers[x.index()].clone();
    let weight = matrix(model, &mut Random(7), 64, spec.width);
    let out = model.buffer(64, spec.rows);
    model.step(Op::MatMul { weight, bias: None, residual: None, x, out });
    out
}

#[test]
fn what_a_kernel_rounds_itself_has_the_bits_of_what_is_rounded_after_it() {
    let Some(gpus) = own_gpus() else { return };
    for (form, gpu) in gpus.iter().enumerate() {
        let rows = |names| gpu.with(names, false).expect("the rows are available");
        let (gpu, plain) = (rows("wgsl-dot-gemv1,wgsl-dot-gemv4"), rows("wgsl-f32-gemv1,wgsl-f32-gemv4"));
        for (seed, case) in CASES.iter().enumerate() {
            // One token, a few, and for attention so many that its parts are merged.
            let lengths: &[usize] = if case.name == "Attend" { &[1, 8, 330] } else { &[1, 8] };
            for &n in lengths {
                let scene = Scene::line(n, VOCAB);
                // Attention of few tokens to many cells: the many come in batches of their own.
                let parts = if n > 8 { vec![n - 5, 5] } else { vec![n] };
                let build = || {
                    let mut model = Model::new(VOCAB);
                    let out = (case.build)(&mut model, &mut Random(seed as u64));
                    (model, out)
                };
                let (mut fused, out) = build();
                let product = multiplied(&mut fused, out);
                let plan = fused.finish(product);
                let counts = [0, 1, 2].map(|i| {
                    if i > 0 {
                        scene.on([&plain, &gpu][i - 1], &plan, &parts);
                    }
                    gpu.counts().dispatches
                });
                // Only attention of many tokens leaves the rounding to a dispatch of its own.
                let more = (counts[2] - counts[1]) - (counts[1] - counts[0]);
                assert_eq!(more, u64::from(n > 8), "{}, {n} tokens", case.name);
                let fused = scene.on(&gpu, &plan, &parts);
                let (model, out) = build();
                let values = scene.on(&gpu, &model.finish(out), &parts);
                let values: Vec<f32> =
                    values.chunks_exact(VOCAB).flat_map(|row| &row[..case.width]).copied().collect();
                let mut apart = Model::new(VOCAB);
                let x = apart.input(case.width, &values);
                let product = multiplied(&mut apart, x);
                let apart = scene.on(&gpu, &apart.finish(product), &parts);
                let wrong = fused.iter().zip(&apart).position(|(a, b)| a.to_bits() != b.to_bits());
                assert_eq!(wrong, None, "{}, {n} tokens, form {form}", case.name);
                assert!(fused.iter().any(|value| *value != 0.0));
            }
        }
    }
}
