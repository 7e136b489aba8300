//! Rotary positions on two axes (Su et al. 2021; the scope axis is our own): of the `d / 2` pairs `(x_k, x_{k + d/2})` of a head,
//! those below `split` turn with the token's position, the others with `sigma` times its scope position, by the angle
//! `position * base^(-2k/d)`.

use cchaha::kernels::{Pool, vectorized};

use super::piece_rows;
use crate::real::Real;

/// How heads turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Width of a head.
    pub head_dim: usize,
    /// The frequencies' base.
    pub base: f64,
    /// First pair of the scope axis; `head_dim / 2` where there is none.
    pub split: usize,
    /// Factor on scope positions.
    pub sigma: f64,
}

/// Cosines and sines of every token's angles, `head_dim / 2` of each per token.
#[derive(Clone, Debug, Default)]
pub struct Angles<T> {
    cos: Vec<T>,
    sin: Vec<T>,
}

impl<T: Real> Angles<T> {
    /// Of tokens at these positions and scope positions.
    pub fn new(rope: Rope, positions: &[u32], scopes: &[u32]) -> Angles<T> {
        let pairs = rope.head_dim / 2;
        let frequencies: Vec<f64> =
            (0..pairs).map(|k| rope.base.powf(-2.0 * k as f64 / rope.head_dim as f64)).collect();
        let mut angles = Angles {
            cos: Vec::with_capacity(positions.len() * pairs),
            sin: Vec::with_capacity(positions.len() * pairs),
        };
        for (&token, &scope) in positions.iter().zip(scopes) {
            for (k, frequency) in frequencies.iter().enumerate() {
                let place = if k < rope.split { f64::from(token) } else { rope.sigma * f64::from(scope) };
                let (sin, cos) = (place * frequency).sin_cos();
                angles.cos.push(T::of(cos));
                angles.sin.push(T::of(sin));
            }
        }
        angles
    }

    /// Turns every head of `x` (tokens, width) in place.
    pub fn turn(&self, pool: &Pool, head_dim: usize, x: &mut [T], width: usize) {
        self.apply(pool, head_dim, x, width, T::ONE);
    }

    /// Turns back: the gradient of what was turned in, from that of what came out.
    pub fn turn_back(&self, pool: &Pool, head_dim: usize, d: &mut [T], width: usize) {
        self.apply(pool, head_dim, d, width, -T::ONE);
    }

    fn apply(&self, pool: &Pool, head_dim: usize, x: &mut [T], width: usize, sign: T) {
        let pairs = head_dim / 2;
        let rows = piece_rows(width);
        let angles = self.cos.chunks(rows * pairs).zip(self.sin.chunks(rows * pairs));
        pool.each(x.chunks_mut(rows * width).zip(angles), |(x, (cos, sin))| {
            vectorized(|| {
                let angles = cos.chunks_exact(pairs).zip(sin.chunks_exact(pairs));
                for (row, (cos, sin)) in x.chunks_exact_mut(width).zip(angles) {
                    for head in row.chunks_exact_mut(head_dim) {
                        let (low, high) = head.split_at_mut(pairs);
                        for ((low, high), (&cos, &sin)) in low.iter_mut().zip(high).zip(cos.iter().zip(sin)) {
                            let (a, b, sin) = (*low, *high, sign * sin);
                            *low = a * cos - b * sin;
                            *high = a * sin + b * cos;
                        }
                    }
                }
            });
        });
    }
}
