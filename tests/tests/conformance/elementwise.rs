//! Embed, Norm, Rope, Activate, Add, Scale, Softcap, TakeRows, TopK.

use cchaha_plan::{
    Activation, Batch, BufferId, Cells, FORMATS, NormKind, Op, RopeLayout, RopePair, RopeTable, Rows, Shape,
};

use crate::bound::{Bound, TINY, U, Weights, compare, within};
use crate::model::{Model, Scene};
use crate::random::Random;
use crate::subjects::{Ratios, oracle, subjects};

/// Tokens of a case.
const N: usize = 11;

/// Row widths: below, at and beside multiples of the vector length.
const WIDTHS: [usize; 9] = [1, 2, 7, 8, 9, 31, 32, 96, 257];

/// Values of every size whose squares f32 can still hold.
fn hostile(random: &mut Random) -> f32 {
    match random.below(9) {
        0 => 0.0,
        1 => -0.0,
        2 => 1e-42,
        3 => -f32::MIN_POSITIVE,
        4 => 1e-20 * random.uniform(),
        5 => 1e15 * random.uniform(),
        6 => 88.0 * random.uniform(),
        7 => 1.0,
        _ => random.uniform(),
    }
}

/// Ordinary rows, hostile rows, a zero row and a row of equal values: `[n, width]`.
fn rows(random: &mut Random, n: usize, width: usize) -> Vec<f32> {
    (0..n)
        .flat_map(|row| match row % 5 {
            0 => vec![0.0; width],
            1 => vec![random.uniform() * 3.0; width],
            2 => random.vec(width, hostile),
            _ => random.vec(width, |random| random.uniform() * 4.0),
        })
        .collect()
}

/// Runs a model of one op on every subject for it and compares with the oracle; `expected(t, i)` is what was derived here,
/// with its tolerance.
fn check(
    op: &str,
    ratios: &mut Ratios,
    width: usize,
    build: impl Fn(usize) -> Model,
    expected: impl Fn(usize, usize) -> (f64, f64),
) {
    let vocab = width.max(N);
    let model = build(vocab);
    let out = BufferId(model.0.buffers.len() as u32 - 1);
    let plan = model.finish(out);
    let scene = Scene::line(N, vocab);
    let want = scene.on(&oracle(), &plan, &scene.whole());
    let row = |t| (0..width).map(|i| expected(t, i)).unzip();
    let bounds: Vec<Bound> = (0..N).map(row).map(|(value, error)| Bound { value, error }).collect();
    for subject in subjects(op) {
        let got = scene.on(&*subject.backend, &plan, &scene.whole());
        let what = format!("{op} of {width} on {}", subject.name);
        ratios.note(&subject, within(&what, &got, &want, &bounds, vocab));
    }
}

#[test]
fn embed() {
    let (mut random, mut ratios) = (Random(1), Ratios::new("Embed"));
    for row in FORMATS {
        let width = row.block_len.max(16) * 2;
        let bytes = random.blocks(row.format, width * width / row.block_len);
        let table = Weights::new(row.format, width, &bytes);
        for scale in [1.0, 30.25, 1.0 / 3.0] {
            let build = |vocab| {
                let mut model = Model::new(vocab);
                let table = model.weight(row.format, Shape::matrix(width, width), bytes.clone());
                let out = model.tokens(width);
                model.step(Op::Embed { table, scale, out });
                model
            };
            // A product that is rounded once.
            check("Embed", &mut ratios, width, build, |t, i| {
                let value = f64::from(scale) * table.value[t * width + i];
                (value, U * value.abs() + TINY * U)
            });
        }
    }
}

#[test]
fn norm() {
    let (mut random, mut ratios) = (Random(2), Ratios::new("Norm"));
    for kind in [NormKind::Rms, NormKind::Layer] {
        for (group, groups) in
            [(1, 3), (2, 1), (7, 2), (8, 3), (31, 1), (64, 3), (96, 1), (257, 1), (1000, 1)]
        {
            for in_place in [false, true] {
                let width = group * groups;
                let eps = [1e-5f32, 1e-6][random.below(2)];
                let x = rows(&mut random, N, width);
                let weight = random.vec(group, |random| random.uniform() * 2.0);
                let bias = (random.below(2) == 0).then(|| random.vec(group, Random::uniform));
                let build = |vocab| {
                    let mut model = Model::new(vocab);
                    let input = model.input(width, &x);
                    let bias = bias.as_ref().map(|bias| model.vector(bias));
                    let weight = model.vector(&weight);
                    let out = if in_place { input } else { model.tokens(width) };
                    model.step(Op::Norm { kind, eps, weight, bias, group, x: input, out });
                    model
                };
                check("Norm", &mut ratios, width, build, |t, i| {
                    let run = &x[t * width + i / group * group..][..group];
                    let n = group as f64;
                    let size = run.iter().map(|&x| f64::from(x).abs()).sum::<f64>() / n;
                    let (center, off_center) = match kind {
                        NormKind::Rms => (0.0, 0.0),
                        // The mean of n terms, summed in any order, and the subtraction.
                        NormKind::Layer => {
                            (run.iter().map(|&x| f64::from(x)).sum::<f64>() / n, (n + 2.0) * U * size)
                        }
                    };
                    let variance = run.iter().map(|&x| (f64::from(x) - center).powi(2)).sum::<f64>() / n;
                    let root = (variance + f64::from(eps)).sqrt();
                    let x = f64::from(x[t * width + i]);
                    let w = f64::from(weight[i % group]);
                    let y = (x - center) / root * w;
                    // An error of every centered value moves the root by at most as much; the sum of n squares has
                    // n roundings, the root halves them; then a few single roundings.
                    let shift = off_center + U * (x.abs() + center.abs());
                    let relative = (n / 2.0 + 8.0) * U + shift / root;
                    let bias = bias.as_ref().map_or(0.0, |bias| f64::from(bias[i % group]));
                    let shift = shift / root * w.abs();
                    (y + bias, shift + relative * (y.abs() + shift) + U * (y.abs() + bias.abs()) + TINY)
                });
            }
        }
    }
}

#[test]
fn rope() {
    let (mut random, mut ratios) = (Random(3), Ratios::new("Rope"));
    for layout in [RopeLayout::Interleaved, RopeLayout::Halves] {
        for (head_dim, n_heads, n_pairs) in [
            (8, 1, 4),
            (8, 3, 2),
            (20, 2, 10),
            (24, 3, 12),
            (40, 1, 17),
            (64, 2, 32),
            (96, 5, 48),
            (128, 1, 64),
            (256, 2, 128),
        ] {
            for axes in [1, 3] {
                let pair = |i: usize| RopePair {
                    axis: (i % axes) as u8,
                    frequency: 10000f64.powf(-(i as f64) / n_pairs as f64),
                };
                let magnitude = if axes == 1 { 1.0 } else { 1.17 };
                let table = RopeTable { pairs: (0..n_pairs).map(pair).collect(), layout, magnitude };
                let (width, n) = (head_dim * n_heads, 12);
                let vocab = width.max(n);
                let x = random.vec(vocab * width, Random::uniform);
                let mut model = Model::new(vocab);
                model.0.axes = axes;
                let input = model.input(width, &x);
                let rope = model.rope(table.clone());
                model.step(Op::Rope { table: rope, head_dim, x: input });
                let plan = model.finish(input);
                let mut scene = Scene::line(n, vocab);
                // Places far into a long context.
                let far = |t: usize, axis: usize| {
                    if axis == 0 { t as i32 * 2731 } else { (t * t + axis * 977) as i32 }
                };
                scene.positions = (0..n * axes).map(|i| far(i / axes, i % axes)).collect();
                let want = scene.on(&oracle(), &plan, &scene.whole());
                for subject in subjects("Rope") {
                    let got = scene.on(&*subject.backend, &plan, &scene.whole());
                    let what = format!(
                        "Rope {layout:?}, {n_pairs} pairs of {head_dim}, {axes} axes on {}",
                        subject.name
                    );
                    let error = |i: usize| {
                        let (t, i) = (i / vocab, i % vocab);
                        let turns = (0..n_pairs).map(|pair| table.pair_indices(pair));
                        let partner =
                            |i: usize| turns.clone().find(|&(a, b)| a == i % head_dim || b == i % head_dim);
                        let Some((a, b)) = partner(i).filter(|_| i < width) else { return 0.0 };
                        let head = &x[t * width + i / head_dim * head_dim..];
                        // cos and sin with the magnitude are rounded once, then two products and a sum.
                        3.0 * U * magnitude * f64::from(head[a].abs() + head[b].abs()) + TINY
                    };
                    ratios.note(&subject, compare(&what, &got, &want, error));
                }
            }
        }
    }
}

#[test]
fn activate() {
    let (mut random, mut ratios) = (Random(4), Ratios::new("Activate"));
    for width in WIDTHS {
        for activation in [Activation::Silu, Activation::GeluTanh] {
            // 0: no gate; 1: out is x; 2: out is up; 3: out is another.
            for mode in 0..4 {
                let x = rows(&mut random, N, width);
                let up = random.vec(N * width, |random| random.uniform() * 3.0);
                let build = |vocab| {
                    let mut model = Model::new(vocab);
                    let (input, gate) = match mode {
                        1 => {
                            let gate = model.input(width, &up);
                            (model.input(width, &x), Some(gate))
                        }
                        _ => (model.input(width, &x), (mode > 0).then(|| model.input(width, &up))),
                    };
                    let out = match mode {
                        1 => input,
                        2 => gate.expect("mode 2 is gated"),
                        _ => model.tokens(width),
                    };
                    model.step(Op::Activate { activation, x: input, up: gate, out });
                    model
                };
                let mut bound = Bound::exact(&x).activate(activation);
                if mode > 0 {
                    bound = bound.mul(&Bound::exact(&up));
                }
                check("Activate", &mut ratios, width, build, |t, i| bound.at(t * width + i));
            }
        }
    }
}

#[test]
fn add_scale_softcap() {
    let mut random = Random(5);
    let [mut adds, mut scales, mut caps] = ["Add", "Scale", "Softcap"].map(Ratios::new);
    for width in WIDTHS {
        let a = rows(&mut random, N, width);
        let b = random.vec(N * width, hostile);
        for in_place in [false, true] {
            let build = |vocab| {
                let mut model = Model::new(vocab);
                let b = model.input(width, &b);
                let a = model.input(width, &a);
                let out = if in_place { a } else { model.tokens(width) };
                model.step(Op::Add { a, b, out });
                model
            };
            let sum = Bound::exact(&a).add(&Bound::exact(&b));
            check("Add", &mut adds, width, build, |t, i| sum.at(t * width + i));
        }
        for factor in [0.0, 1.0, -0.37, 1e-30] {
            let build = |vocab| {
                let mut model = Model::new(vocab);
                let x = model.input(width, &a);
                model.step(Op::Scale { factor, x });
                model
            };
            check("Scale", &mut scales, width, build, |t, i| {
                let value = f64::from(a[t * width + i]) * f64::from(factor);
                (value, U * value.abs() + TINY)
            });
        }
        for cap in [30.0f32, 0.5] {
            let build = |vocab| {
                let mut model = Model::new(vocab);
                let x = model.input(width, &b);
                model.step(Op::Softcap { cap, x });
                model
            };
            // tanh is good to 8 roundings, its argument to 1 with a slope that makes the result's relative error no
            // larger, then the product.
            check("Softcap", &mut caps, width, build, |t, i| {
                let value = f64::from(cap) * (f64::from(b[t * width + i]) / f64::from(cap)).tanh();
                (value, 10.0 * U * value.abs() + TINY)
            });
        }
    }
}

#[test]
fn take_rows_takes_the_rows_that_are_wanted() {
    let mut random = Random(6);
    for width in [1, 8, 33] {
        let vocab = width.max(9);
        let x = random.vec(vocab * width, hostile);
        let mut model = Model::new(vocab);
        let input = model.input(width, &x);
        let plan = model.finish(input);
        let scene = Scene::line(9, vocab);
        for wanted in [&[0u32][..], &[8], &[1, 2, 5], &[], &[0, 1, 2, 3, 4, 5, 6, 7, 8]] {
            for subject in subjects("TakeRows") {
                let mut runner = subject.backend.prepare(plan.clone(), scene.limits()).unwrap();
                let mut cells = Cells::new(16);
                cells.pos[..9].copy_from_slice(&scene.positions);
                let batch = Batch {
                    tokens: &scene.tokens,
                    positions: &scene.positions,
                    sequence: &scene.sequence,
                    cell: &scene.cell,
                    logits: wanted,
                    coarse: &[],
                    sequences: &[&[0]],
                    cells: &cells,
                };
                let got = runner.run(&batch).unwrap();
                assert_eq!(got.len(), wanted.len() * vocab);
                for (row, &t) in got.chunks_exact(vocab).zip(wanted) {
                    let row: Vec<f32> = row[..width].to_vec();
                    assert_eq!(row, x[t as usize * width..][..width], "token {t} on {}", subject.name);
                }
            }
        }
    }
}

#[test]
fn top_k_is_exact() {
    let mut random = Random(7);
    for (width, k) in [(1, 1), (2, 2), (9, 1), (9, 4), (33, 8), (64, 64), (1000, 5)] {
        // Many ties, zeros of both signs among them.
        let x = random
            .vec(N * width, |random| (random.below(7) as f32 - 3.0) * [0.5, 0.25, -0.5][random.below(3)]);
        for second in [false, true] {
            let vocab = width.max(N);
            let mut model = Model::new(vocab);
            let input = model.input(width, &x);
            let (values, indices) = (model.buffer(k, Rows::Tokens), model.buffer(k, Rows::Tokens));
            model.step(Op::TopK { x: input, k, values, indices });
            let plan = model.finish(if second { indices } else { values });
            let scene = Scene::line(N, vocab);
            let want = scene.on(&oracle(), &plan, &scene.whole());
            for subject in subjects("TopK") {
                let got = scene.on(&*subject.backend, &plan, &scene.whole());
                assert_eq!(got, want, "top {k} of {width} (indices: {second}) on {}", subject.name);
            }
        }
    }
}
