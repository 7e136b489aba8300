//! `y = x W^T` with `W` (outputs, inputs).

use cchaha::kernels::Pool;

use crate::real::{Real, View};

/// A product's sizes.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Linear {
    pub inputs: usize,
    pub outputs: usize,
}

impl Linear {
    /// `y (+)= x W^T`.
    pub fn forward<T: Real>(self, pool: &Pool, x: &[T], w: &[T], y: &mut [T], accumulate: bool) {
        let rows = x.len() / self.inputs;
        let x = View::new(x, rows, self.inputs);
        T::gemm(pool, x, View::new(w, self.outputs, self.inputs).t(), y, accumulate);
    }

    /// `dx (+)= dy W`.
    pub fn backward_input<T: Real>(self, pool: &Pool, dy: &[T], w: &[T], dx: &mut [T], accumulate: bool) {
        let rows = dy.len() / self.outputs;
        let dy = View::new(dy, rows, self.outputs);
        T::gemm(pool, dy, View::new(w, self.outputs, self.inputs), dx, accumulate);
    }

    /// `dW += dy^T x`.
    pub fn backward_weight<T: Real>(self, pool: &Pool, dy: &[T], x: &[T], dw: &mut [T]) {
        let rows = x.len() / self.inputs;
        let dy = View::new(dy, rows, self.outputs);
        T::gemm(pool, dy.t(), View::new(x, rows, self.inputs), dw, true);
    }
}
