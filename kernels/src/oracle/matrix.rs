//! Row-major f64 matrices, and threads over their rows.

/// `rows` rows of `width` values.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) values: Vec<f64>,
}

impl Matrix {
    pub(super) fn new(rows: usize, values: Vec<f64>) -> Matrix {
        Matrix { rows, width: values.len() / rows.max(1), values }
    }

    pub(super) fn nan(rows: usize, width: usize) -> Matrix {
        Matrix { rows, width, values: vec![f64::NAN; rows * width] }
    }

    pub(super) fn from_fn(rows: usize, width: usize, f: impl Fn(usize, usize) -> f64) -> Matrix {
        let values = (0..rows).flat_map(|t| (0..width).map(move |i| (t, i))).map(|(t, i)| f(t, i)).collect();
        Matrix { rows, width, values }
    }

    pub(super) fn row(&self, t: usize) -> &[f64] {
        &self.values[t * self.width..][..self.width]
    }

    pub(super) fn row_mut(&mut self, t: usize) -> &mut [f64] {
        &mut self.values[t * self.width..][..self.width]
    }

    pub(super) fn map(&self, f: impl Fn(f64) -> f64) -> Matrix {
        Matrix { values: self.values.iter().map(|&x| f(x)).collect(), ..*self }
    }

    pub(super) fn zip(&self, other: &Matrix, f: impl Fn(f64, f64) -> f64) -> Matrix {
        Matrix { values: self.values.iter().zip(&other.values).map(|(&a, &b)| f(a, b)).collect(), ..*self }
    }
}

/// How many threads share the rows of a matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Threads(pub(super) usize);

impl Threads {
    /// Fills a matrix row by row. Each row is written by one thread, so its values do not depend on how many there are.
    pub(super) fn rows(self, rows: usize, width: usize, fill: impl Fn(usize, &mut [f64]) + Sync) -> Matrix {
        let mut matrix = Matrix::nan(rows, width);
        if matrix.values.is_empty() {
            return matrix;
        }
        let share = rows.div_ceil(self.0);
        let fill = &fill;
        std::thread::scope(|scope| {
            for (part, values) in matrix.values.chunks_mut(share * width).enumerate() {
                scope.spawn(move || {
                    for (i, row) in values.chunks_exact_mut(width).enumerate() {
                        fill(part * share + i, row);
                    }
                });
            }
        });
        matrix
    }
}
