//! Token embeddings: `out[t] = table[token[t]]`.

use crate::real::Real;

/// Rows of `table` (vocab, width) for `tokens`.
///
/// # Panics
/// Where a token is not in the table.
pub fn forward<T: Real>(table: &[T], tokens: &[u32], width: usize, out: &mut [T]) {
    for (out, &token) in out.chunks_exact_mut(width).zip(tokens) {
        out.copy_from_slice(&table[token as usize * width..][..width]);
    }
}

/// Adds `d_out` to the gradient of the rows that were read, in the order of the tokens.
pub fn backward<T: Real>(d_out: &[T], tokens: &[u32], width: usize, d_table: &mut [T]) {
    for (d_out, &token) in d_out.chunks_exact(width).zip(tokens) {
        let row = &mut d_table[token as usize * width..][..width];
        row.iter_mut().zip(d_out).for_each(|(row, &d)| *row += d);
    }
}
