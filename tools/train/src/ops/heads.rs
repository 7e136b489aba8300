//! Between rows of tokens (sequence, token, head, value) and rows of heads (sequence, head, token, value), as attention wants them.

use cchaha::kernels::Pool;

use crate::real::Real;

/// Sizes of a batch of heads.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Tokens of a sequence.
    pub len: usize,
    /// Heads of a token.
    pub heads: usize,
    /// Values of a head.
    pub head_dim: usize,
}

impl Heads {
    fn sequence(self) -> usize {
        self.len * self.heads * self.head_dim
    }

    /// Tokens to heads.
    pub fn split<T: Real>(self, pool: &Pool, tokens: &[T], heads: &mut [T]) {
        let (d, width) = (self.head_dim, self.heads * self.head_dim);
        pool.each(heads.chunks_mut(self.len * d).enumerate(), |(i, out)| {
            let (sequence, head) = (i / self.heads, i % self.heads);
            let tokens = &tokens[sequence * self.sequence()..][..self.sequence()];
            for (out, row) in out.chunks_exact_mut(d).zip(tokens.chunks_exact(width)) {
                out.copy_from_slice(&row[head * d..][..d]);
            }
        });
    }

    /// Heads to tokens.
    pub fn join<T: Real>(self, pool: &Pool, heads: &[T], tokens: &mut [T]) {
        let (d, width) = (self.head_dim, self.heads * self.head_dim);
        const ROWS: usize = 64;
        let sequences = tokens.chunks_mut(self.sequence()).enumerate();
        let pieces = sequences.flat_map(|(sequence, rows)| {
            rows.chunks_mut(ROWS * width).enumerate().map(move |(piece, rows)| (sequence, piece * ROWS, rows))
        });
        pool.each(pieces, |(sequence, first, rows)| {
            let heads = &heads[sequence * self.sequence()..][..self.sequence()];
            for (t, row) in (first..).zip(rows.chunks_exact_mut(width)) {
                for (head, out) in row.chunks_exact_mut(d).enumerate() {
                    out.copy_from_slice(&heads[(head * self.len + t) * d..][..d]);
                }
            }
        });
    }
}
