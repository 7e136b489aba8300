//! MatMul, GatedMatMul and Experts, over every format a kernel accepts.

use cchaha_plan::{Activation, Format, Op, Routing, Rows, Shape};

use crate::bound::{Bound, RUN, Rounding, U, Weights, within};
use crate::model::{Model, Scene};
use crate::random::Random;
use crate::subjects::{Ratios, Subject, fewer_cases, oracle, subjects};

/// Activations a kernel meets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Ordinary,
    /// Whole steps of a power of two, with the largest step in every group: rounding activations loses nothing.
    Grid,
    /// Outliers beside small values, zero rows, equal rows, huge, tiny and subnormal values.
    Hostile,
    /// All of the largest size, against weights of the largest integers: integer sums come closest to overflow.
    Extreme,
    /// One value among 16, a power of two, against weights with scales that are such: most products are half floats.
    Sparse,
}

fn activations(random: &mut Random, kind: Kind, n: usize, cols: usize, rounding: Rounding) -> Vec<f32> {
    let most = rounding.most() as f32;
    (0..n)
        .flat_map(|row| match (kind, row % 7) {
            (Kind::Ordinary, _) => random.vec(cols, |random| random.uniform() + random.uniform()),
            (Kind::Grid, _) => {
                let step = [1.0, 2f32.powi(-14), 64.0][row % 3];
                let largest = row * 37 % RUN.min(cols);
                let place = |c: usize| {
                    if c % RUN == largest || c + 1 == cols { most } else { random.steps(rounding.most()) }
                };
                (0..cols).map(place).map(|steps| steps * step).collect()
            }
            (Kind::Extreme, 0) => vec![most; cols],
            (Kind::Extreme, 1) => vec![-most; cols],
            (Kind::Extreme, _) => random.vec(cols, |random| [1.0, -1.0][random.below(2)] * most),
            (Kind::Sparse, _) => {
                let place = random.below(16);
                let value = |random: &mut Random| [1.0, -1.0][random.below(2)] * [1.0, 64.0][random.below(2)];
                let at = |c: usize, random: &mut Random| {
                    if c % 16 == (place + c / 16 * 5) % 16 { value(random) } else { 0.0 }
                };
                (0..cols).map(|c| at(c, random)).collect()
            }
            (Kind::Hostile, 0) => vec![0.0; cols],
            (Kind::Hostile, 1) => vec![-0.7; cols],
            (Kind::Hostile, 2) => random.vec(cols, |random| random.uniform() * 1e25),
            (Kind::Hostile, 3) => random.vec(cols, |random| random.uniform() * 1e-25),
            (Kind::Hostile, 4) => random.vec(cols, |random| random.uniform() * 1e-41),
            (Kind::Hostile, 5) => {
                random.vec(cols, |random| random.uniform() * if random.below(40) == 0 { 1e4 } else { 1.0 })
            }
            (Kind::Hostile, _) => {
                // Single values, the rest negative zeros.
                (0..cols).map(|c| if c % 64 == 31 { 3.0 } else { -0.0 }).collect()
            }
        })
        .collect()
}

/// Token counts around the tile sizes of kernels.
const TOKENS: [usize; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 33, 64];

struct Case {
    format: Format,
    rows: usize,
    cols: usize,
    n: usize,
    kind: Kind,
    bias: bool,
    residual: bool,
    logits_rows: bool,
}

fn matmul_case(case: &Case, subject: &Subject, random: &mut Random) -> f64 {
    let &Case { format, cols, n, kind, .. } = case;
    // What makes the result as wide as the vocabulary is a product as well, and would round it once more.
    let narrows = matches!(subject.rounding, Rounding::Halves { .. });
    let rows = if narrows { case.rows.max(n) } else { case.rows };
    let vocab = rows.max(n);
    let n_blocks = rows * cols / format.block_len();
    let bytes = match kind {
        Kind::Extreme => random.extreme_blocks(format, n_blocks),
        Kind::Sparse => random.plain_blocks(format, n_blocks),
        _ => random.blocks(format, n_blocks),
    };
    let x = activations(random, kind, n, cols, subject.rounding);
    let bias = case.bias.then(|| random.vec(rows, Random::uniform));
    let residual = case.residual.then(|| random.vec(n * rows, Random::uniform));

    let mut model = Model::new(vocab);
    let mut input = model.input(cols, &x);
    let weight = model.weight(format, Shape::matrix(rows, cols), bytes.clone());
    let bias_id = bias.as_ref().map(|bias| model.vector(bias));
    let residual_id = residual.as_ref().map(|residual| model.input(rows, residual));
    if case.logits_rows {
        let taken = model.buffer(cols, Rows::Logits);
        model.step(Op::TakeRows { x: input, out: taken });
        input = taken;
    }
    let out_rows = if case.logits_rows { Rows::Logits } else { Rows::Tokens };
    let out = residual_id.unwrap_or_else(|| model.buffer(rows, out_rows));
    model.step(Op::MatMul { weight, bias: bias_id, residual: residual_id, x: input, out });
    let plan = model.finish(out);

    let scene = Scene::line(n, vocab);
    let want = scene.on(&oracle(), &plan, &scene.whole());
    let got = scene.on(&*subject.backend, &plan, &scene.whole());
    let weights = Weights::new(format, cols, &bytes);
    let bounds: Vec<Bound> = x
        .chunks_exact(cols)
        .enumerate()
        .map(|(t, x)| {
            let mut bound = weights.matmul(&Bound::exact(x), subject.rounding);
            if let Some(bias) = &bias {
                bound = bound.add(&Bound::exact(bias));
            }
            if let Some(residual) = &residual {
                bound = bound.add(&Bound::exact(&residual[t * rows..][..rows]));
            }
            bound
        })
        .collect();
    let what = format!("MatMul {format} [{rows}, {cols}] x {n} tokens, {kind:?}, on {}", subject.name);
    within(&what, &got, &want, &bounds, vocab)
}

#[test]
fn matmul() {
    let (mut random, mut ratios) = (Random(21), Ratios::new("MatMul"));
    for subject in subjects("MatMul") {
        for &format in subject.formats {
            let block = format.block_len().max(8);
            // Odd numbers of rows against every width of tile; few and many blocks per row.
            for (rows, blocks) in [(1, 1), (2, 3), (3, 2), (5, 1), (8, 4), (13, 3), (37, 5), (64, 2)] {
                for kind in [Kind::Ordinary, Kind::Grid, Kind::Hostile, Kind::Extreme, Kind::Sparse] {
                    if random.below(subject.one_in) > 0 {
                        continue;
                    }
                    let n = TOKENS[random.below(TOKENS.len())];
                    let coins = random.bits();
                    let (bias, residual) = (coins & 1 != 0, coins & 2 != 0);
                    let logits_rows = coins & 4 != 0 && !residual;
                    let case =
                        Case { format, rows, cols: blocks * block, n, kind, bias, residual, logits_rows };
                    ratios.note(&subject, matmul_case(&case, &subject, &mut random));
                }
            }
            for n in TOKENS {
                if random.below(subject.one_in) > 0 {
                    continue;
                }
                let case = Case {
                    format,
                    rows: 19,
                    cols: 2 * block,
                    n,
                    kind: if matches!(subject.rounding, Rounding::Halves { .. }) {
                        Kind::Sparse
                    } else {
                        Kind::Grid
                    },
                    bias: false,
                    residual: false,
                    logits_rows: false,
                };
                ratios.note(&subject, matmul_case(&case, &subject, &mut random));
            }
        }
    }
}

/// More than a tile of any matrix-matrix kernel in both directions, in two formats.
#[test]
fn matmul_of_several_tiles() {
    let (mut random, mut ratios) = (Random(25), Ratios::new("MatMul"));
    for subject in subjects("MatMul").iter().filter(|subject| subject.name.contains("wgsl")) {
        for (format, cols, kind) in [(Format::Q4_K, 256, Kind::Sparse), (Format::F16, 64, Kind::Ordinary)] {
            let is_gemv = subject.name.contains("gemv");
            if is_gemv || !subject.formats.contains(&format) {
                continue;
            }
            let (n, bias, residual) = (131, true, true);
            let case = Case { format, rows: 133, cols, n, kind, bias, residual, logits_rows: false };
            ratios.note(subject, matmul_case(&case, subject, &mut random));
        }
    }
}

#[test]
fn float_rows_of_any_length() {
    let (mut random, mut ratios) = (Random(22), Ratios::new("MatMul"));
    for subject in subjects("MatMul") {
        for format in [Format::F32, Format::F16, Format::BF16] {
            if !subject.formats.contains(&format) {
                continue;
            }
            for cols in [1, 2, 3, 7, 9, 15, 17, 33, 100, 257] {
                let n = TOKENS[random.below(TOKENS.len())];
                let case = Case {
                    format,
                    rows: 11,
                    cols,
                    n,
                    kind: Kind::Ordinary,
                    bias: false,
                    residual: true,
                    logits_rows: false,
                };
                ratios.note(&subject, matmul_case(&case, &subject, &mut random));
            }
        }
    }
}

#[test]
fn gated_matmul() {
    let (mut random, mut ratios) = (Random(23), Ratios::new("GatedMatMul"));
    for subject in subjects("GatedMatMul") {
        for &format in subject.formats {
            for (rows, blocks, activation) in
                [(1, 1, Activation::Silu), (13, 2, Activation::GeluTanh), (40, 3, Activation::Silu)]
            {
                for kind in [Kind::Ordinary, Kind::Grid] {
                    let cols = blocks * format.block_len().max(8);
                    let n = TOKENS[random.below(TOKENS.len())];
                    let vocab = rows.max(n);
                    let x = activations(&mut random, kind, n, cols, subject.rounding);
                    let mut matrix = || random.blocks(format, rows * cols / format.block_len());
                    let (gate, up) = (matrix(), matrix());
                    let mut model = Model::new(vocab);
                    let input = model.input(cols, &x);
                    let [gate_id, up_id] = [&gate, &up]
                        .map(|bytes| model.weight(format, Shape::matrix(rows, cols), bytes.clone()));
                    let (scratch, out) = (model.tokens(rows), model.tokens(rows));
                    model.step(Op::GatedMatMul {
                        gate: gate_id,
                        up: up_id,
                        activation,
                        x: input,
                        scratch,
                        out,
                    });
                    let plan = model.finish(out);
                    let scene = Scene::line(n, vocab);
                    let want = scene.on(&oracle(), &plan, &scene.whole());
                    let got = scene.on(&*subject.backend, &plan, &scene.whole());
                    let [gate, up] = [&gate, &up].map(|bytes| Weights::new(format, cols, bytes));
                    let bounds: Vec<Bound> = x
                        .chunks_exact(cols)
                        .map(|x| {
                            let x = Bound::exact(x);
                            let up = up.matmul(&x, subject.rounding);
                            gate.matmul(&x, subject.rounding).activate(activation).mul(&up)
                        })
                        .collect();
                    let what =
                        format!("GatedMatMul {format} [{rows}, {cols}] x {n}, {kind:?}, on {}", subject.name);
                    ratios.note(&subject, within(&what, &got, &want, &bounds, vocab));
                }
            }
        }
    }
}

#[test]
fn experts() {
    let (mut random, mut ratios) = (Random(24), Ratios::new("Experts"));
    for subject in subjects("Experts") {
        for &format in subject.formats {
            let block = format.block_len().max(8);
            for (n_experts, top_k, routing) in [
                (1, 1, Routing::TopKThenSoftmax),
                (4, 2, Routing::SoftmaxThenTopKRenormalized),
                (7, 3, Routing::TopKThenSoftmax),
                (5, 5, Routing::SoftmaxThenTopKRenormalized),
            ] {
                if random.below(fewer_cases()) > 0 {
                    continue;
                }
                let (cols, hidden) = (block, block * 2);
                let n = TOKENS[random.below(TOKENS.len())];
                let vocab = cols.max(n);
                let x = activations(&mut random, Kind::Ordinary, n, cols, subject.rounding);
                // Scores with ties.
                let scores = random.vec(n * n_experts, |random| random.grid() * 4.0);
                let mut matrix = || random.blocks(format, n_experts * hidden * cols / format.block_len());
                let bytes = [matrix(), matrix(), matrix()];
                let mut model = Model::new(vocab);
                let input = model.input(cols, &x);
                let router = model.input(n_experts, &scores);
                let narrow = Shape { cols, rows: hidden, experts: n_experts };
                let wide = Shape { cols: hidden, rows: cols, experts: n_experts };
                let gate = model.weight(format, narrow, bytes[0].clone());
                let up = model.weight(format, narrow, bytes[1].clone());
                let down = model.weight(format, wide, bytes[2].clone());
                let out = model.tokens(cols);
                let activation = Activation::Silu;
                model.step(Op::Experts { router, routing, top_k, gate, up, down, activation, x: input, out });
                let plan = model.finish(out);
                let scene = Scene::line(n, vocab);
                let want = scene.on(&oracle(), &plan, &scene.whole());
                let got = scene.on(&*subject.backend, &plan, &scene.whole());

                let part = |bytes: &[u8], expert: usize, cols: usize| {
                    let size = bytes.len() / n_experts;
                    Weights::new(format, cols, &bytes[expert * size..][..size])
                };
                let bounds: Vec<Bound> = (0..n)
                    .map(|t| {
                        let x = Bound::exact(&x[t * cols..][..cols]);
                        let mut sum = Bound::exact(&vec![0.0; cols]);
                        for (expert, weight) in route(&scores[t * n_experts..][..n_experts], top_k) {
                            let up = part(&bytes[1], expert, cols).matmul(&x, subject.rounding);
                            let gate = part(&bytes[0], expert, cols)
                                .matmul(&x, subject.rounding)
                                .activate(activation);
                            let down =
                                part(&bytes[2], expert, hidden).matmul(&gate.mul(&up), subject.rounding);
                            // Of the two exponentials, their sum and the quotient.
                            let error = (16.0 + top_k as f64) * U * weight;
                            sum = sum.add(&down.scale(Bound { value: vec![weight], error: vec![error] }));
                        }
                        sum
                    })
                    .collect();
                let what =
                    format!("Experts {format}, {top_k} of {n_experts}, {n} tokens, on {}", subject.name);
                ratios.note(&subject, within(&what, &got, &want, &bounds, vocab));
            }
        }
    }
}

/// Both routings are the same in exact arithmetic: the softmax over the chosen.
fn route(scores: &[f32], k: usize) -> Vec<(usize, f64)> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| (scores[b] + 0.0).total_cmp(&(scores[a] + 0.0)));
    order.truncate(k);
    let sum: f64 = order.iter().map(|&e| f64::from(scores[e]).exp()).sum();
    order.into_iter().map(|e| (e, f64::from(scores[e]).exp() / sum)).collect()
}
