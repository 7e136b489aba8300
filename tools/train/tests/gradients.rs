//! Every operation's gradients, and a whole network's, against finite differences in f64.

use cchaha::kernels::Pool;
use cchaha_train::model::{Batch, Config, Network, Sequence, Step};
use cchaha_train::ops::attention::{self, Attention, Block, Inputs, Made, Means, Sight, Tokens};
use cchaha_train::ops::heads::Heads;
use cchaha_train::ops::linear::Linear;
use cchaha_train::ops::loss::{self, IGNORED, Output, cross_entropy};
use cchaha_train::ops::rope::{Angles, Rope};
use cchaha_train::ops::{embed, norm, swiglu};

/// Numbers in [-1, 1).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64) / (1u64 << 52) as f64 - 1.0
    }

    fn list(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.next()).collect()
    }
}

fn pool() -> Pool {
    Pool::new(2).unwrap()
}

/// Compares `gradients` of `f` at `inputs` with central differences, value by value.
///
/// A step h has an error of h^2/6 times the third derivative, 1e-10 here, and one of 2^-52 |f| / h from rounding, about 1e-11: so a
/// part in a million of a list's typical gradient tells a right gradient from a wrong one.
fn check(name: &str, inputs: &[Vec<f64>], gradients: &[Vec<f64>], f: impl Fn(&[Vec<f64>]) -> f64) {
    const H: f64 = 1e-5;
    for (list, expected) in gradients.iter().enumerate() {
        assert_eq!(inputs[list].len(), expected.len(), "{name}: list {list}");
        let typical = (expected.iter().map(|g| g * g).sum::<f64>() / expected.len() as f64).sqrt();
        assert!(typical > 0.0, "{name}: list {list} has no gradient");
        let mut inputs = inputs.to_vec();
        // A prime step through long lists.
        let step = if expected.len() > 400 { 37 } else { 1 };
        for i in (0..expected.len()).step_by(step) {
            let x = inputs[list][i];
            inputs[list][i] = x + H;
            let above = f(&inputs);
            inputs[list][i] = x - H;
            let below = f(&inputs);
            inputs[list][i] = x;
            let found = (above - below) / (2.0 * H);
            let error = (found - expected[i]).abs();
            let bound = 1e-6 * typical.max(expected[i].abs());
            assert!(error < bound, "{name}: list {list}[{i}]: {} and by differences {found}", expected[i]);
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn embedding() {
    let mut numbers = Numbers(1);
    let (table, tokens) = (numbers.list(5 * 3), [4, 0, 4, 2]);
    let wanted = numbers.list(tokens.len() * 3);
    let mut d_table = vec![0.0; table.len()];
    embed::backward(&wanted, &tokens, 3, &mut d_table);
    check("embed", &[table], &[d_table], |x| {
        let mut out = vec![0.0; wanted.len()];
        embed::forward(&x[0], &tokens, 3, &mut out);
        dot(&out, &wanted)
    });
}

#[test]
fn rms_norm() {
    let (mut numbers, pool) = (Numbers(2), pool());
    for (rows, width) in [(5, 24), (3, 300)] {
        let (x, w, wanted) = (numbers.list(rows * width), numbers.list(width), numbers.list(rows * width));
        let forward = |x: &[f64], w: &[f64], inverse_rms: &mut [f64]| {
            let mut y = vec![0.0; x.len()];
            norm::forward(&pool, 1e-6, x, w, &mut y, inverse_rms);
            y
        };
        let mut inverse_rms = vec![0.0; rows];
        forward(&x, &w, &mut inverse_rms);
        let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; width]);
        norm::Backward { x: &x, w: &w, inverse_rms: &inverse_rms, dy: &wanted }
            .write_to(&pool, &mut dx, &mut dw);
        let mut twice = dx.clone();
        norm::Backward { x: &x, w: &w, inverse_rms: &inverse_rms, dy: &wanted }.add_to(
            &pool,
            &mut twice,
            &mut vec![0.0; width],
        );
        assert!(twice.iter().zip(&dx).all(|(twice, dx)| (twice - 2.0 * dx).abs() < 1e-12));
        check("norm", &[x, w], &[dx, dw], |x| dot(&forward(&x[0], &x[1], &mut vec![0.0; rows]), &wanted));
    }
}

#[test]
fn linear() {
    let (mut numbers, pool) = (Numbers(3), pool());
    let product = Linear { inputs: 7, outputs: 5 };
    let (x, w, wanted) = (numbers.list(4 * 7), numbers.list(5 * 7), numbers.list(4 * 5));
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    product.backward_input(&pool, &wanted, &w, &mut dx, false);
    product.backward_weight(&pool, &wanted, &x, &mut dw);
    check("linear", &[x, w], &[dx, dw], |x| {
        let mut y = vec![0.0; wanted.len()];
        product.forward(&pool, &x[0], &x[1], &mut y, false);
        dot(&y, &wanted)
    });
}

#[test]
fn rotary_positions_on_two_axes() {
    let (mut numbers, pool) = (Numbers(4), pool());
    let rope = Rope { head_dim: 8, base: 100.0, split: 2, sigma: 0.7 };
    let angles = Angles::<f64>::new(rope, &[0, 3, 17], &[0, 1, 5]);
    let (x, wanted) = (numbers.list(3 * 16), numbers.list(3 * 16));
    let mut dx = wanted.clone();
    angles.turn_back(&pool, 8, &mut dx, 16);
    check("rope", std::slice::from_ref(&x), &[dx], |x| {
        let mut x = x[0].clone();
        angles.turn(&pool, 8, &mut x, 16);
        dot(&x, &wanted)
    });

    // A score depends on how far apart two tokens are on both axes, and on nothing else.
    let score = |positions: [u32; 2], scopes: [u32; 2]| {
        let mut heads = x[..16].to_vec();
        Angles::<f64>::new(rope, &positions, &scopes).turn(&pool, 8, &mut heads, 8);
        dot(&heads[..8], &heads[8..])
    };
    assert!((score([3, 9], [1, 4]) - score([103, 109], [11, 14])).abs() < 1e-12);
    assert!((score([3, 9], [1, 4]) - score([3, 9], [1, 5])).abs() > 1e-3);
    assert!((score([3, 9], [1, 4]) - score([3, 10], [1, 4])).abs() > 1e-3);
}

#[test]
fn swiglu_gate() {
    let (mut numbers, pool) = (Numbers(5), pool());
    let (gate, up, wanted) = (numbers.list(40), numbers.list(40), numbers.list(40));
    let (mut d_gate, mut d_up) = (gate.clone(), up.clone());
    swiglu::backward(&pool, &wanted, &mut d_gate, &mut d_up);
    check("swiglu", &[gate, up], &[d_gate, d_up], |x| {
        let mut y = vec![0.0; 40];
        swiglu::forward(&pool, &x[0], &x[1], &mut y);
        dot(&y, &wanted)
    });
}

#[test]
fn splitting_heads_is_undone_by_joining_them() {
    let (x, pool) = (Numbers(6).list(2 * 150 * 3 * 4), pool());
    let heads = Heads { len: 150, heads: 3, head_dim: 4 };
    let (mut split, mut joined) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    heads.split(&pool, &x, &mut split);
    assert_eq!(
        split[(3 * 150 + 150 + 7) * 4 + 1],
        x[((150 + 7) * 3 + 1) * 4 + 1],
        "sequence 1, head 1, token 7"
    );
    heads.join(&pool, &split, &mut joined);
    assert_eq!(joined, x);
}

/// Two documents of 70 and 80 tokens, some tokens of each pinned.
fn tokens() -> (Vec<u32>, Vec<bool>) {
    let document = [vec![0; 70], vec![70; 80]].concat();
    let pinned = (0..150).map(|i| [3, 4, 40, 72, 90].contains(&i)).collect();
    (document, pinned)
}

#[test]
fn attention_sees_what_the_rule_says_and_has_the_right_gradients() {
    let (mut numbers, pool) = (Numbers(7), pool());
    let (document, pinned) = tokens();
    let sizes = Attention { len: 150, heads: 4, kv_heads: 2, head_dim: 6 };
    let (q_len, kv_len) = (2 * 150 * 4 * 6, 2 * 150 * 2 * 6);
    let (q, k, v) = (numbers.list(q_len), numbers.list(kv_len), numbers.list(kv_len));
    let wanted = numbers.list(q_len);
    let sights = [(None, false), (Some(20), false), (Some(20), true)];
    for sight in sights.map(|(window, pins)| Sight { window, pins }) {
        let tokens = Tokens { document: &document, pinned: &pinned };
        let blocks = vec![Block::<f64>::all(sight, tokens), Block::all(sight, tokens)];
        let scratch = attention::Scratch::default();
        let means = Means { pool: &pool, blocks: &blocks, scratch: &scratch };
        let forward = |x: &[Vec<f64>], log_sum: &mut [f64]| {
            let mut out = vec![0.0; q_len];
            let given = Inputs { q: &x[0], k: &x[1], v: &x[2] };
            sizes.forward(means, given, &mut out, log_sum);
            out
        };
        let inputs = [q.clone(), k.clone(), v.clone()];
        let mut log_sum = vec![0.0; 2 * 4 * 150];
        let out = forward(&inputs, &mut log_sum);

        // The plain definition, for every head and query.
        for (sequence, head, t) in
            (0..2).flat_map(|s| (0..4).flat_map(move |h| (0..150).map(move |t| (s, h, t))))
        {
            let row = |list: &[f64], heads: usize, head: usize, t: usize| {
                list[((sequence * heads + head) * 150 + t) * 6..][..6].to_vec()
            };
            let seen = (0..=t).filter(|&c| {
                let near = sight.window.is_none_or(|window| t - c < window);
                document[c] == document[t] && (near || sight.pins && pinned[c])
            });
            let seen: Vec<usize> = seen.collect();
            let query = row(&q, 4, head, t);
            let weights = seen.iter().map(|&c| (dot(&query, &row(&k, 2, head / 2, c)) / 6f64.sqrt()).exp());
            let weights: Vec<f64> = weights.collect();
            let sum: f64 = weights.iter().sum();
            for (i, &found) in row(&out, 4, head, t).iter().enumerate() {
                let values = seen.iter().zip(&weights);
                let expected: f64 = values.map(|(&c, w)| w / sum * row(&v, 2, head / 2, c)[i]).sum();
                assert!((found - expected).abs() < 1e-12, "{sight:?}, head {head}, token {t}");
            }
        }

        let (mut d_q, mut d_k, mut d_v) = (vec![9.0; q_len], vec![9.0; kv_len], vec![9.0; kv_len]);
        let given = Inputs { q: &q, k: &k, v: &v };
        let made = Made { out: &out, log_sum: &log_sum };
        let into = attention::Gradients { q: &mut d_q, k: &mut d_k, v: &mut d_v };
        sizes.backward(means, given, made, &wanted, into);
        check("attention", &inputs, &[d_q, d_k, d_v], |x| {
            dot(&forward(x, &mut vec![0.0; 2 * 4 * 150]), &wanted)
        });
    }
}

#[test]
fn loss_of_the_tied_output() {
    let (mut numbers, pool) = (Numbers(8), pool());
    let (n, width, vocab) = (300, 4, 11);
    let (hidden, table) = (numbers.list(n * width), numbers.list(vocab * width));
    let targets: Vec<u32> = (0..n as u32).map(|i| if i % 7 == 0 { IGNORED } else { i * 5 % 11 }).collect();
    let (mut d_hidden, mut d_table, mut losses) =
        (vec![9.0; n * width], vec![0.0; vocab * width], vec![0.0; n]);
    let mut scratch = loss::Scratch::default();
    let gradients = loss::Gradients { scale: 0.5, hidden: &mut d_hidden, table: &mut d_table };
    let output = Output { hidden: &hidden, table: &table, width };
    cross_entropy(&pool, output, &targets, &mut losses, Some(gradients), &mut scratch);
    assert!(d_hidden[..width].iter().all(|&d| d == 0.0), "what is ignored has no gradient");
    check("loss", &[hidden, table], &[d_hidden, d_table], |x| {
        let (mut losses, mut scratch) = (vec![0.0; n], loss::Scratch::default());
        let output = Output { hidden: &x[0], table: &x[1], width };
        cross_entropy(&pool, output, &targets, &mut losses, None, &mut scratch);
        0.5 * losses.iter().sum::<f64>()
    });
}

#[test]
fn a_whole_network() {
    let (mut numbers, pool) = (Numbers(9), pool());
    let config = Config {
        vocab: 13,
        width: 12,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 6,
        hidden: 10,
        context: 30,
        window: 5,
        pattern: 2,
        rope_base: 100.0,
        scope_split: 2,
        sigma: 1.0,
        pins: true,
    };
    let mut sequence = Sequence::default();
    let text = |n: usize, numbers: &mut Numbers| -> Vec<u32> {
        (0..n).map(|_| ((numbers.next() + 1.0) * 6.5) as u32).collect()
    };
    for len in [18, 9] {
        let tokens = text(len, &mut numbers);
        let scopes: Vec<u32> = (0..len as u32).map(|i| i / 4).collect();
        let pinned: Vec<bool> = (0..len).map(|i| i < 3).collect();
        sequence.push(&tokens, &scopes, &pinned);
    }
    sequence.pad(30);
    let batch = Batch { sequences: vec![sequence.clone(), sequence] };
    assert_eq!(batch.targets(), 2 * (17 + 8));
    let mut network = Network::<f64>::new(&config);
    let weights = numbers.list(network.layout().len());
    let mut gradients = vec![0.0; weights.len()];
    network.run(&pool, &weights, &batch, Some(Step { scale: 0.1, gradients: &mut gradients }));
    let tensors = network.layout().tensors.clone();
    let inputs: Vec<Vec<f64>> = tensors.iter().map(|tensor| weights[tensor.range.clone()].to_vec()).collect();
    let expected: Vec<Vec<f64>> =
        tensors.iter().map(|tensor| gradients[tensor.range.clone()].to_vec()).collect();
    let network = std::cell::RefCell::new(network);
    check("network", &inputs, &expected, |x| {
        0.1 * network.borrow_mut().run(&pool, &x.concat(), &batch, None)
    });
}
