//! AdamW (Loshchilov and Hutter, arXiv 1711.05101).

use cchaha::kernels::{Pool, vectorized};

use super::{PIECE, Part, Rate};

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.95;
const EPS: f32 = 1e-10;

/// `m, v` follow the gradient and its square; `w -= lr (m' / (sqrt(v') + eps) + decay w)` with both corrected for their start at 0.
pub(super) fn update(pool: &Pool, step: u64, rate: Rate, at: Part<'_>, v: &mut [f32]) {
    let (Rate { lr, decay }, Part { w, g, first: m }) = (rate, at);
    let correction = |beta: f32| 1.0 - f64::from(beta).powf(step as f64);
    let rate = (lr / correction(BETA1)) as f32;
    let root = (1.0 / correction(BETA2)) as f32;
    let keep = (1.0 - lr * decay) as f32;
    let given = w.chunks_mut(PIECE).zip(g.chunks(PIECE));
    pool.each(given.zip(m.chunks_mut(PIECE).zip(v.chunks_mut(PIECE))), |((w, g), (m, v))| {
        vectorized(|| {
            for ((w, &g), (m, v)) in w.iter_mut().zip(g).zip(m.iter_mut().zip(v)) {
                *m = BETA1 * *m + (1.0 - BETA1) * g;
                *v = BETA2 * *v + (1.0 - BETA2) * g * g;
                *w = *w * keep - rate * *m / ((*v * root).sqrt() + EPS);
            }
        });
    });
}
