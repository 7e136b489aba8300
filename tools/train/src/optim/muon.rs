//! Muon (Jordan et al. 2024): momentum whose singular values are all brought near 1, so that every direction of a matrix learns
//! at the same pace. Scaled to the size of AdamW's steps as in Liu et al. 2025 (arXiv 2502.16982).

use cchaha::kernels::{Matrix, Pool, gemm, vectorized};

use super::{PIECE, Part, Rate, length};

const MOMENTUM: f32 = 0.95;
/// Root mean square of AdamW's steps in practice, in learning rates.
const STEP_SIZE: f64 = 0.2;
const ROUNDS: usize = 5;
/// Of the polynomial `a x + b x^3 + c x^5`, steep at 0, which maps (0, 1] into about (0.7, 1.2) after five rounds.
const COEFFICIENTS: [f32; 3] = [3.4445, -4.775, 2.0315];

/// Changes the matrix `w` (rows, cols).
pub(super) fn update(pool: &Pool, rows: usize, cols: usize, rate: Rate, at: Part<'_>) {
    let (Rate { lr, decay }, Part { w, g, first: momentum }) = (rate, at);
    let mut step = vec![0.0; g.len()];
    let given = g.chunks(PIECE).zip(momentum.chunks_mut(PIECE)).zip(step.chunks_mut(PIECE));
    pool.each(given, |((g, momentum), step)| {
        vectorized(|| {
            for ((&g, momentum), step) in g.iter().zip(momentum).zip(step) {
                *momentum = MOMENTUM * *momentum + g;
                // Nesterov's look ahead.
                *step = g + MOMENTUM * *momentum;
            }
        });
    });
    orthogonalize(pool, rows, cols, &mut step);
    let rate = (lr * STEP_SIZE * (rows.max(cols) as f64).sqrt()) as f32;
    let keep = (1.0 - lr * decay) as f32;
    pool.each(w.chunks_mut(PIECE).zip(step.chunks(PIECE)), |(w, step)| {
        vectorized(|| w.iter_mut().zip(step).for_each(|(w, &step)| *w = *w * keep - rate * step));
    });
}

/// Replaces a matrix by one with the same singular vectors and singular values near 1: Newton-Schulz iteration of degree 5,
/// `X <- a X + (b A + c A^2) X` with `A = X X^T`. A matrix of zeros stays.
pub fn orthogonalize(pool: &Pool, rows: usize, cols: usize, x: &mut [f32]) {
    let norm = length(pool, x);
    if norm < 1e-30 {
        return;
    }
    let scale = (1.0 / norm) as f32;
    x.iter_mut().for_each(|x| *x *= scale);
    // The products are of the smaller side.
    let tall = rows > cols;
    let side = rows.min(cols);
    let [a, b, c] = COEFFICIENTS;
    let (mut square, mut polynomial) = (vec![0.0; side * side], vec![0.0; side * side]);
    let mut next = vec![0.0; x.len()];
    for _ in 0..ROUNDS {
        let view = Matrix::new(x, rows, cols);
        let (left, right) = if tall { (view.t(), view) } else { (view, view.t()) };
        gemm(pool, left, right, &mut square, false);
        let of_square = Matrix::new(&square, side, side);
        gemm(pool, of_square, of_square, &mut polynomial, false);
        for (i, (p, &s)) in polynomial.iter_mut().zip(&square).enumerate() {
            *p = b * s + c * *p + if i % (side + 1) == 0 { a } else { 0.0 };
        }
        let polynomial = Matrix::new(&polynomial, side, side);
        let (left, right) = if tall { (view, polynomial) } else { (polynomial, view) };
        gemm(pool, left, right, &mut next, false);
        x.copy_from_slice(&next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn singular_values_come_near_one_for_wide_and_tall_matrices() {
        let (pool, mut rng) = (Pool::new(2).unwrap(), Rng::new(1, 2));
        for (rows, cols) in [(8, 24), (24, 8), (16, 16)] {
            let mut x: Vec<f32> = (0..rows * cols).map(|_| rng.normal() as f32).collect();
            let before = x.clone();
            orthogonalize(&pool, rows, cols, &mut x);
            // The sum of squared singular values is the sum of squares: their mean square is near 1.
            let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
            let mean = squares / rows.min(cols) as f64;
            assert!((0.5..1.4).contains(&mean), "{rows} x {cols}: {mean}");
            let along: f32 = x.iter().zip(&before).map(|(a, b)| a * b).sum();
            assert!(along > 0.0, "steps go the gradient's way");
        }
        let mut zeros = vec![0.0; 12];
        orthogonalize(&pool, 3, 4, &mut zeros);
        assert_eq!(zeros, [0.0; 12]);
    }
}
