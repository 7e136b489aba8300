//! Causal attention with windows, pins and document boundaries.
//!
//! Scores exist for a block of queries at a time, and only against the keys that a query of the block may see. Which those are is
//! data ([`Block`]): computed once per batch, the same for all heads and for all layers of a kind.
//!
//! ```text
//! keys of a block:  pinned before the window | window of the first query .. last query
//!                   [ 3, 9, 17,              | 192, 193, .. 511 ]
//! ```
//!
//! The way back computes a block's scores again from the stored log of their sum (Dao et al. 2022).

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use cchaha::kernels::{Pool, vectorized};

use crate::real::{Real, View, largest, sum2};

/// Queries of a block.
const QUERIES: usize = 64;

/// Who sees whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Newest tokens a query sees, itself included; everything where `None`.
    pub window: Option<usize>,
    /// Whether pinned tokens are seen from beyond the window.
    pub pins: bool,
}

/// A sequence's tokens as far as visibility goes.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    /// Index of the first token of each token's document.
    pub document: &'a [u32],
    /// Tokens that stay visible.
    pub pinned: &'a [bool],
}

/// A block of queries and the keys that at least one of them may see.
#[derive(Clone, Debug)]
pub struct Block<T> {
    queries: Range<usize>,
    keys: Vec<u32>,
    /// (query, key): 0 where visible, else so low that nothing is left.
    bias: Vec<T>,
}

impl<T: Real> Block<T> {
    /// The blocks of one sequence.
    pub fn all(sight: Sight, tokens: Tokens<'_>) -> Vec<Block<T>> {
        let len = tokens.document.len();
        (0..len).step_by(QUERIES).map(|q| Block::new(sight, tokens, q..(q + QUERIES).min(len))).collect()
    }

    fn new(sight: Sight, tokens: Tokens<'_>, queries: Range<usize>) -> Block<T> {
        let begin = tokens.document[queries.start] as usize;
        let near = match sight.window {
            Some(window) => begin.max((queries.start + 1).saturating_sub(window)),
            None => begin,
        };
        let pinned = |k: usize| sight.pins && tokens.pinned[k];
        let mut keys: Vec<u32> = (begin..near).filter(|&k| pinned(k)).map(|k| k as u32).collect();
        keys.extend(near as u32..queries.end as u32);
        let hidden = T::of(-1e30);
        let mut bias = Vec::with_capacity(queries.len() * keys.len());
        for q in queries.clone() {
            let begin = tokens.document[q] as usize;
            bias.extend(keys.iter().map(|&k| {
                let k = k as usize;
                let near = sight.window.is_none_or(|window| q.saturating_sub(k) < window);
                if k <= q && k >= begin && (near || pinned(k)) { T::ZERO } else { hidden }
            }));
        }
        Block { queries, keys, bias }
    }
}

/// Sizes of attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Tokens of a sequence.
    pub len: usize,
    /// Heads of Q.
    pub heads: usize,
    /// Heads of K and V.
    pub kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
}

/// Q, K, V by heads: (sequence, head, token, value).
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Inputs<'a, T> {
    pub q: &'a [T],
    pub k: &'a [T],
    pub v: &'a [T],
}

/// What attention made: the output by heads, and per query the log of the sum of its scores' exponentials.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Made<'a, T> {
    pub out: &'a [T],
    pub log_sum: &'a [T],
}

/// Gradients of Q, K, V, all written.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Gradients<'a, T> {
    pub q: &'a mut [T],
    pub k: &'a mut [T],
    pub v: &'a mut [T],
}

/// Buffers of the threads.
#[derive(Debug, Default)]
pub struct Scratch<T>(Mutex<Vec<Buffers<T>>>);

#[derive(Debug, Default)]
struct Buffers<T> {
    q: Vec<T>,
    k: Vec<T>,
    v: Vec<T>,
    scores: Vec<T>,
    d_scores: Vec<T>,
    out: Vec<T>,
    d_out: Vec<T>,
    d_keys: Vec<T>,
}

impl<T: Real> Scratch<T> {
    fn with(&self, f: impl FnOnce(&mut Buffers<T>)) {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = lock().pop();
        let mut buffers = taken.unwrap_or_default();
        f(&mut buffers);
        lock().push(buffers);
    }
}

/// What both directions need beside their data.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a, T> {
    /// Threads.
    pub pool: &'a Pool,
    /// The blocks of every sequence.
    pub blocks: &'a [Vec<Block<T>>],
    /// Buffers.
    pub scratch: &'a Scratch<T>,
}

/// One sequence's queries of the heads that share a head of K and V.
struct Group<'a, T> {
    attention: Attention,
    blocks: &'a [Block<T>],
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
}

impl Attention {
    fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    /// Values of the queries of a group in one sequence, and of its keys.
    fn sizes(self) -> (usize, usize) {
        let keys = self.len * self.head_dim;
        (self.group() * keys, keys)
    }

    fn groups<'a, T: Real>(
        self,
        blocks: &'a [Vec<Block<T>>],
        given: Inputs<'a, T>,
    ) -> impl Iterator<Item = Group<'a, T>> {
        let (queries, keys) = self.sizes();
        let given = given.q.chunks(queries).zip(given.k.chunks(keys)).zip(given.v.chunks(keys));
        let kv_heads = self.kv_heads;
        given.enumerate().map(move |(i, ((q, k), v))| Group {
            attention: self,
            blocks: &blocks[i / kv_heads],
            q,
            k,
            v,
        })
    }

    /// `out = softmax(q k^T / sqrt(d)) v` over what each query sees.
    pub fn forward<T: Real>(
        self,
        means: Means<'_, T>,
        given: Inputs<'_, T>,
        out: &mut [T],
        log_sum: &mut [T],
    ) {
        let Means { pool, blocks, scratch } = means;
        let queries = self.sizes().0;
        let made = out.chunks_mut(queries).zip(log_sum.chunks_mut(self.group() * self.len));
        pool.each(self.groups(blocks, given).zip(made), |(group, (out, log_sum))| {
            scratch.with(|buffers| group.forward(out, log_sum, buffers));
        });
    }

    /// The gradients of Q, K and V from that of the output.
    pub fn backward<T: Real>(
        self,
        means: Means<'_, T>,
        given: Inputs<'_, T>,
        made: Made<'_, T>,
        d_out: &[T],
        into: Gradients<'_, T>,
    ) {
        let Means { pool, blocks, scratch } = means;
        let (queries, keys) = self.sizes();
        let made = made.out.chunks(queries).zip(made.log_sum.chunks(self.group() * self.len));
        let given = self.groups(blocks, given).zip(made).zip(d_out.chunks(queries));
        let into = into.q.chunks_mut(queries).zip(into.k.chunks_mut(keys)).zip(into.v.chunks_mut(keys));
        pool.each(given.zip(into), |(((group, (out, log_sum)), d_out), ((d_q, d_k), d_v))| {
            let made = Made { out, log_sum };
            let into = Gradients { q: d_q, k: d_k, v: d_v };
            scratch.with(|buffers| group.backward(made, d_out, into, buffers));
        });
    }
}

impl<T: Real> Group<'_, T> {
    fn heads(&self) -> usize {
        self.attention.group()
    }

    /// Copies the rows of a block's queries, all heads of the group one after the other.
    fn gather_queries(&self, block: &Block<T>, from: &[T], scale: T, into: &mut Vec<T>) {
        let (len, d) = (self.attention.len, self.attention.head_dim);
        into.clear();
        for head in 0..self.heads() {
            let rows = &from[(head * len + block.queries.start) * d..][..block.queries.len() * d];
            into.extend(rows.iter().map(|&x| x * scale));
        }
    }

    fn scatter_queries(&self, block: &Block<T>, from: &[T], scale: T, into: &mut [T]) {
        let (len, d) = (self.attention.len, self.attention.head_dim);
        let n = block.queries.len() * d;
        for (head, from) in from.chunks_exact(n).enumerate() {
            let rows = &mut into[(head * len + block.queries.start) * d..][..n];
            rows.iter_mut().zip(from).for_each(|(into, &x)| *into = x * scale);
        }
    }

    fn gather_keys(&self, block: &Block<T>, from: &[T], into: &mut Vec<T>) {
        let d = self.attention.head_dim;
        into.clear();
        for &key in &block.keys {
            into.extend_from_slice(&from[key as usize * d..][..d]);
        }
    }

    fn scatter_keys(&self, block: &Block<T>, from: &[T], into: &mut [T]) {
        let d = self.attention.head_dim;
        for (&key, from) in block.keys.iter().zip(from.chunks_exact(d)) {
            let row = &mut into[key as usize * d..][..d];
            row.iter_mut().zip(from).for_each(|(into, &x)| *into += x);
        }
    }

    /// Scores of a block, without bias: (head, query, key).
    fn scores(&self, block: &Block<T>, b: &mut Buffers<T>) {
        let d = self.attention.head_dim;
        let scale = T::ONE / T::of(d as f64).sqrt();
        self.gather_queries(block, self.q, scale, &mut b.q);
        self.gather_keys(block, self.k, &mut b.k);
        self.gather_keys(block, self.v, &mut b.v);
        let (rows, keys) = (b.q.len() / d, block.keys.len());
        b.scores.resize(rows * keys, T::ZERO);
        T::gemm_here(View::new(&b.q, rows, d), View::new(&b.k, keys, d).t(), &mut b.scores, false);
    }

    /// Row by row: its bias and its log of the sum.
    fn rows<'b>(
        &self,
        block: &'b Block<T>,
        scores: &'b mut [T],
    ) -> impl Iterator<Item = (usize, &'b [T], &'b mut [T])> {
        let (len, keys, queries) = (self.attention.len, block.keys.len(), block.queries.len());
        scores.chunks_exact_mut(keys).enumerate().map(move |(row, scores)| {
            let (head, q) = (row / queries, row % queries);
            (head * len + block.queries.start + q, &block.bias[q * keys..][..keys], scores)
        })
    }

    fn forward(&self, out: &mut [T], log_sum: &mut [T], b: &mut Buffers<T>) {
        let d = self.attention.head_dim;
        for block in self.blocks {
            self.scores(block, b);
            let keys = block.keys.len();
            vectorized(|| {
                for (row, bias, scores) in self.rows(block, &mut b.scores) {
                    for (score, &bias) in scores.iter_mut().zip(bias) {
                        *score += bias;
                    }
                    let most = largest(scores);
                    for score in scores.iter_mut() {
                        *score = (*score - most).exp();
                    }
                    let sum = sum2(scores, scores, |x, _| x);
                    let factor = T::ONE / sum;
                    scores.iter_mut().for_each(|x| *x *= factor);
                    log_sum[row] = sum.ln() + most;
                }
            });
            let rows = b.scores.len() / keys;
            b.out.resize(rows * d, T::ZERO);
            T::gemm_here(View::new(&b.scores, rows, keys), View::new(&b.v, keys, d), &mut b.out, false);
            self.scatter_queries(block, &b.out, T::ONE, out);
        }
    }

    /// With `p = softmax(s)`: `dv = p^T do`, `dp = do v^T`, `ds = p (dp - sum(do o))`, `dq = ds k`, `dk = ds^T q`.
    fn backward(&self, made: Made<'_, T>, d_out: &[T], into: Gradients<'_, T>, b: &mut Buffers<T>) {
        let d = self.attention.head_dim;
        into.k.fill(T::ZERO);
        into.v.fill(T::ZERO);
        let scale = T::ONE / T::of(d as f64).sqrt();
        for block in self.blocks {
            self.scores(block, b);
            self.gather_queries(block, made.out, T::ONE, &mut b.out);
            self.gather_queries(block, d_out, T::ONE, &mut b.d_out);
            let (rows, keys) = (b.q.len() / d, block.keys.len());
            let d_rows = View::new(&b.d_out, rows, d);
            b.d_scores.resize(rows * keys, T::ZERO);
            T::gemm_here(d_rows, View::new(&b.v, keys, d).t(), &mut b.d_scores, false);
            vectorized(|| {
                let outs = b.out.chunks_exact(d).zip(b.d_out.chunks_exact(d));
                let rows = self.rows(block, &mut b.scores).zip(b.d_scores.chunks_exact_mut(keys));
                for (((row, bias, scores), d_scores), (out, d_out)) in rows.zip(outs) {
                    let log_sum = made.log_sum[row];
                    let mean = sum2(out, d_out, |a, b| a * b);
                    for ((score, &bias), d_score) in scores.iter_mut().zip(bias).zip(d_scores) {
                        let p = (*score + bias - log_sum).exp();
                        *score = p;
                        *d_score = p * (*d_score - mean);
                    }
                }
            });
            b.d_keys.resize(keys * d, T::ZERO);
            T::gemm_here(View::new(&b.scores, rows, keys).t(), d_rows, &mut b.d_keys, false);
            self.scatter_keys(block, &b.d_keys, into.v);
            let d_scores = View::new(&b.d_scores, rows, keys);
            T::gemm_here(d_scores.t(), View::new(&b.q, rows, d), &mut b.d_keys, false);
            self.scatter_keys(block, &b.d_keys, into.k);
            T::gemm_here(d_scores, View::new(&b.k, keys, d), &mut b.out, false);
            self.scatter_queries(block, &b.out, scale, into.q);
        }
    }
}
