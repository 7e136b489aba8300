//! SwiGLU (Shazeer 2020): `y = silu(gate) * up`, `silu(x) = x / (1 + e^-x)`.

use cchaha::kernels::{Pool, vectorized};

use super::PIECE;
use crate::real::Real;

#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

/// `y = silu(gate) * up`.
pub fn forward<T: Real>(pool: &Pool, gate: &[T], up: &[T], y: &mut [T]) {
    pool.each(gate.chunks(PIECE).zip(up.chunks(PIECE)).zip(y.chunks_mut(PIECE)), |((gate, up), y)| {
        vectorized(|| {
            for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
                *y = gate * sigmoid(gate) * up;
            }
        });
    });
}

/// Replaces `gate` and `up` by their gradients.
pub fn backward<T: Real>(pool: &Pool, dy: &[T], gate: &mut [T], up: &mut [T]) {
    pool.each(dy.chunks(PIECE).zip(gate.chunks_mut(PIECE)).zip(up.chunks_mut(PIECE)), |((dy, gate), up)| {
        vectorized(|| {
            for ((&dy, gate), up) in dy.iter().zip(gate).zip(up) {
                let (g, u, s) = (*gate, *up, sigmoid(*gate));
                *gate = dy * u * s * (T::ONE + g * (T::ONE - s));
                *up = dy * g * s;
            }
        });
    });
}
