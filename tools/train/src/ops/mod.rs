//! Operations, each forward and backward, over f32 and f64.
//!
//! Backward functions take the gradient of what the forward function made and *add* to the gradients of its weights. Rows are
//! tokens. Work is cut into pieces of a fixed size, so results do not depend on the number of threads.

pub mod attention;
pub mod embed;
pub mod heads;
pub mod linear;
pub mod loss;
pub mod norm;
pub mod rope;
pub mod swiglu;

/// Values of a piece of row-wise work: small enough for the first caches, large enough to outweigh handing it out.
const PIECE: usize = 1 << 14;

/// Rows of a piece of rows this wide.
fn piece_rows(width: usize) -> usize {
    (PIECE / width.max(1)).max(1)
}
