//! What happens to one row of values.

use cchaha_plan::{Activation, NormKind, RopeTable, Routing};

/// `sum_i a[i] * b[i]`, as eight sums of every eighth product that are then added in order: the fixed order lets
/// the compiler use vector registers, and it is the same for every caller.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a_lanes, a_rest) = a.as_chunks::<8>();
    let (b_lanes, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// Normalizes `x` in place. `weight`, `bias`: as long as `x`.
pub(super) fn norm(kind: NormKind, eps: f64, weight: &[f64], bias: Option<&[f64]>, x: &mut [f64]) {
    let n = x.len() as f64;
    let center = match kind {
        NormKind::Rms => 0.0,
        NormKind::Layer => x.iter().sum::<f64>() / n,
    };
    let variance = x.iter().map(|x| (x - center).powi(2)).sum::<f64>() / n;
    let root = (variance + eps).sqrt();
    for (i, x) in x.iter_mut().enumerate() {
        *x = (*x - center) / root * weight[i] + bias.map_or(0.0, |bias| bias[i]);
    }
}

/// Turns the rotary pairs of one head in place: `(a, b) -> magnitude * (a cos - b sin, a sin + b cos)`.
pub(super) fn rope(table: &RopeTable, positions: &[i32], head: &mut [f64]) {
    for (i, pair) in table.pairs.iter().enumerate() {
        let (sin, cos) = (f64::from(positions[usize::from(pair.axis)]) * pair.frequency).sin_cos();
        let (first, second) = table.pair_indices(i);
        let (a, b) = (head[first], head[second]);
        head[first] = table.magnitude * (a * cos - b * sin);
        head[second] = table.magnitude * (a * sin + b * cos);
    }
}

pub(super) fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            // (1 + tanh(u)) / 2, in the form that does not cancel for negative u.
            x / (1.0 + (-2.0 * u).exp())
        }
    }
}

pub(super) fn softcap(cap: f64, x: f64) -> f64 {
    cap * (x / cap).tanh()
}

/// `exp(x[i]) / sum_j exp(x[j])`. The greatest is subtracted first, which changes nothing but the range.
pub(super) fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = x.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.into_iter().map(|e| e / sum).collect()
}

/// Indices of the `k` largest values, descending; ties: the lower index. NaN counts as larger than any number.
pub(super) fn top_k(x: &[f64], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    // Adding 0 makes the two zeros equal; the sort is stable.
    order.sort_by(|&i, &j| (x[j] + 0.0).total_cmp(&(x[i] + 0.0)));
    order.truncate(k);
    order
}

/// The experts of one token and their weights.
pub(super) fn route(routing: Routing, k: usize, scores: &[f64]) -> Vec<(usize, f64)> {
    let chosen = top_k(scores, k);
    let weights: Vec<f64> = match routing {
        Routing::SoftmaxThenTopKRenormalized => {
            let all = softmax(scores);
            let sum: f64 = chosen.iter().map(|&e| all[e]).sum();
            chosen.iter().map(|&e| all[e] / sum).collect()
        }
        Routing::TopKThenSoftmax => softmax(&chosen.iter().map(|&e| scores[e]).collect::<Vec<_>>()),
    };
    chosen.into_iter().zip(weights).collect()
}
