//! The same bits for any number of threads, for any way to split the tokens into batches, and with any batch mates.

use std::sync::Arc;

use cchaha_kernels::Oracle;
use cchaha_plan::{
    Activation, Format, MaskRule, NormKind, Op, Plan, RopeLayout, RopePair, RopeTable, Rows, SelectionId,
    Shape,
};

use crate::model::{Model, Scene};
use crate::random::Random;
use crate::subjects::{fewer_cases, whole_backends};

const WIDTH: usize = 256;
const HIDDEN: usize = 512;
const VOCAB: usize = 301;

/// A transformer of two layers: one with a window and page selection, one that sees everything; 4 heads.
fn transformer(formats: [Format; 3], n_kv_heads: usize, random: &mut Random) -> Arc<Plan> {
    let (n_heads, head_dim) = (4, WIDTH / 4);
    let mut model = Model::new(VOCAB);
    let matrix = |model: &mut Model, random: &mut Random, format: Format, rows: usize, cols: usize| {
        let bytes = random.blocks(format, rows * cols / format.block_len());
        model.weight(format, Shape::matrix(rows, cols), bytes)
    };
    let table = random.vec(VOCAB * WIDTH, Random::uniform);
    let x = model.input(WIDTH, &table);
    let pairs = (0..head_dim / 2)
        .map(|i| RopePair { axis: 0, frequency: 10000f64.powf(-2.0 * i as f64 / head_dim as f64) })
        .collect();
    let rope = model.rope(RopeTable { pairs, layout: RopeLayout::Halves, magnitude: 1.0 });
    model.0.selections = 1;
    let masks =
        [MaskRule { sinks: 2, ..MaskRule::sliding(16) }, MaskRule::CAUSAL].map(|mask| model.mask(mask));
    let widths = [WIDTH, WIDTH, n_kv_heads * head_dim, n_kv_heads * head_dim, WIDTH, HIDDEN, HIDDEN];
    let [y, q, k, v, attended, scratch, hidden] = widths.map(|width| model.tokens(width));
    for (layer, mask) in masks.into_iter().enumerate() {
        let slot = model.slot(n_kv_heads, head_dim);
        let norm = |model: &mut Model, random: &mut Random| {
            let weight = random.vec(WIDTH, |random| 1.0 + 0.1 * random.uniform());
            let weight = model.vector(&weight);
            model.step(Op::Norm {
                kind: NormKind::Rms,
                eps: 1e-5,
                weight,
                bias: None,
                group: WIDTH,
                x,
                out: y,
            });
        };
        norm(&mut model, random);
        for (out, rows) in [(q, WIDTH), (k, n_kv_heads * head_dim), (v, n_kv_heads * head_dim)] {
            let weight = matrix(&mut model, random, formats[0], rows, WIDTH);
            model.step(Op::MatMul { weight, bias: None, residual: None, x: y, out });
        }
        // Random blocks are larger than trained weights: bring scores to a size where attention is spread.
        model.step(Op::Scale { factor: 0.1, x: q });
        for x in [q, k] {
            model.step(Op::Rope { table: rope, head_dim, x });
        }
        model.step(Op::KvStore { slot, k, v });
        let selection = (layer == 0).then_some(SelectionId(0));
        if let Some(out) = selection {
            model.step(Op::SelectPages { q, slot, n_heads, mask, pages: 1, out });
        }
        let scale = 1.0 / (head_dim as f32).sqrt();
        model.step(Op::Attend {
            q,
            slot,
            n_heads,
            scale,
            softcap: None,
            mask,
            selection,
            sink_scores: None,
            out: attended,
        });
        let weight = matrix(&mut model, random, formats[0], WIDTH, WIDTH);
        model.step(Op::MatMul { weight, bias: None, residual: Some(x), x: attended, out: x });
        norm(&mut model, random);
        let [gate, up] = [0, 0].map(|_| matrix(&mut model, random, formats[1], HIDDEN, WIDTH));
        model.step(Op::GatedMatMul { gate, up, activation: Activation::Silu, x: y, scratch, out: hidden });
        let weight = matrix(&mut model, random, formats[2], WIDTH, HIDDEN);
        model.step(Op::MatMul { weight, bias: None, residual: Some(x), x: hidden, out: x });
    }
    let last = model.buffer(WIDTH, Rows::Logits);
    model.step(Op::TakeRows { x, out: last });
    let weight = matrix(&mut model, random, formats[2], VOCAB, WIDTH);
    let logits = model.buffer(VOCAB, Rows::Logits);
    model.step(Op::MatMul { weight, bias: None, residual: None, x: last, out: logits });
    model.finish(logits)
}

/// All formats, three to a plan; heads share keys by two or by four, for which kernels differ.
fn plans() -> Vec<([Format; 3], Arc<Plan>)> {
    use Format::*;
    let mut random = Random(61);
    [
        [Q4_K, Q4_K, Q6_K],
        [Q4_0, Q4_1, Q8_0],
        [Q5_0, Q5_1, F16],
        [Q2_K, Q3_K, Q5_K],
        [IQ4_NL, IQ4_XS, MXFP4],
        [F32, BF16, F32],
    ]
    .into_iter()
    .zip([1, 2].into_iter().cycle())
    .step_by(fewer_cases())
    .map(|(formats, n_kv_heads)| (formats, transformer(formats, n_kv_heads, &mut random)))
    .collect()
}

fn same(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(want.is_finite(), "{what}: logit {} of token {} is {want}", i % VOCAB, i / VOCAB);
        assert_eq!(got.to_bits(), want.to_bits(), "{what}: logit {} of token {}", i % VOCAB, i / VOCAB);
    }
}

/// Three sequences that take turns, out of order in the cache; one is longer than what a kernel reads at once.
fn crowd() -> Scene {
    Scene::interleaved(&[40, 21, 90], VOCAB, |page| (page * 3 + 1) % 11)
}

#[test]
fn threads() {
    let scene = crowd();
    for (formats, plan) in plans() {
        for row in whole_backends() {
            let want = scene.on(&*(row.make)(1), &plan, &scene.whole());
            for threads in [2, 3] {
                let got = scene.on(&*(row.make)(threads), &plan, &scene.whole());
                same(&format!("{} with {threads} threads, {formats:?}", row.name), &got, &want);
            }
        }
    }
}

#[test]
fn the_oracle_too() {
    let (scene, mut random) = (crowd(), Random(63));
    let plan = transformer([Format::Q4_K, Format::F16, Format::Q8_0], 2, &mut random);
    let want = scene.on(&Oracle { threads: 1 }, &plan, &scene.whole());
    for parts in [scene.whole(), random.parts(scene.len(), 30)] {
        same("oracle", &scene.on(&Oracle { threads: 3 }, &plan, &parts), &want);
    }
}

#[test]
fn batches() {
    let (scene, mut random) = (crowd(), Random(62));
    for (formats, plan) in plans() {
        for row in whole_backends() {
            let backend = (row.make)(2);
            let want = scene.on(&*backend, &plan, &scene.whole());
            let one_by_one = vec![1; scene.len()];
            let parts = [one_by_one, random.parts(scene.len(), 9), random.parts(scene.len(), 70)];
            for parts in parts {
                let got = scene.on(&*backend, &plan, &parts);
                same(&format!("{} in batches of {parts:?}, {formats:?}", row.name), &got, &want);
            }
        }
    }
}

/// Batches of which no logits, or few, are wanted.
#[test]
fn fewer_logits() {
    let (scene, last) = (crowd(), crowd().len() - 1);
    for (formats, plan) in plans() {
        for row in whole_backends() {
            let backend = (row.make)(2);
            let all = scene.on(&*backend, &plan, &scene.whole());
            let mut runner = backend.prepare(plan.clone(), scene.limits()).unwrap_or_else(|e| panic!("{e}"));
            let got =
                scene.run_wanting(&mut *runner, plan.axes, &[40, 1, last - 40], |t| t == 3 || t == last);
            let want = [&all[3 * VOCAB..][..VOCAB], &all[last * VOCAB..][..VOCAB]].concat();
            same(&format!("{}, {formats:?}", row.name), &got.unwrap_or_else(|e| panic!("{e}")), &want);
        }
    }
}

#[test]
fn batch_mates() {
    let scene = crowd();
    for (formats, plan) in plans() {
        for row in whole_backends() {
            let backend = (row.make)(2);
            let together = scene.on(&*backend, &plan, &scene.whole());
            for sequence in 0..scene.sequences.len() {
                let mine: Vec<usize> =
                    (0..scene.len()).filter(|&t| scene.sequence[t] as usize == sequence).collect();
                let mut alone = scene.clone();
                alone.tokens = mine.iter().map(|&t| scene.tokens[t]).collect();
                alone.positions = mine.iter().map(|&t| scene.positions[t]).collect();
                alone.sequence = vec![0; mine.len()];
                alone.cell = mine.iter().map(|&t| scene.cell[t]).collect();
                alone.sequences = vec![scene.sequences[sequence].clone()];
                let got = alone.on(&*backend, &plan, &alone.whole());
                let want: Vec<f32> =
                    mine.iter().flat_map(|&t| &together[t * VOCAB..][..VOCAB]).copied().collect();
                same(&format!("{}: sequence {sequence} alone, {formats:?}", row.name), &got, &want);
            }
        }
    }
}
