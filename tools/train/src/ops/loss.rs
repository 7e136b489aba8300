//! Cross-entropy of the next token over logits of the tied embeddings, in chunks of tokens so that no more logits than those of a
//! chunk exist at a time.

use cchaha::kernels::{Pool, vectorized};

use crate::real::{Real, View, largest, sum2};

/// Target of a token whose prediction does not count.
pub const IGNORED: u32 = u32::MAX;

/// Tokens of a chunk.
const CHUNK: usize = 256;

/// Buffers.
#[derive(Debug, Default)]
pub struct Scratch<T> {
    logits: Vec<T>,
}

/// The output layer.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a, T> {
    /// (tokens, width).
    pub hidden: &'a [T],
    /// (vocab, width).
    pub table: &'a [T],
    /// Values of a row.
    pub width: usize,
}

/// Gradients that are wanted.
#[derive(Debug)]
pub struct Gradients<'a, T> {
    /// Factor on the loss of every token: one over the number of tokens of the step.
    pub scale: T,
    /// Written: gradient of the hidden rows.
    pub hidden: &'a mut [T],
    /// Added to: gradient of the table.
    pub table: &'a mut [T],
}

/// `-ln p(target)` of every token into `losses`, 0 where it is [`IGNORED`]; and the gradients.
pub fn cross_entropy<T: Real>(
    pool: &Pool,
    output: Output<'_, T>,
    targets: &[u32],
    losses: &mut [T],
    mut gradients: Option<Gradients<'_, T>>,
    scratch: &mut Scratch<T>,
) {
    let Output { hidden, table, width } = output;
    let vocab = table.len() / width;
    let table_view = View::new(table, vocab, width);
    for (chunk, targets) in targets.chunks(CHUNK).enumerate() {
        let (start, n) = (chunk * CHUNK, targets.len());
        let rows = start * width..(start + n) * width;
        let hidden = View::new(&hidden[rows.clone()], n, width);
        scratch.logits.resize(n * vocab, T::ZERO);
        let logits = &mut scratch.logits[..n * vocab];
        T::gemm(pool, hidden, table_view.t(), logits, false);
        let scale = gradients.as_ref().map(|gradients| gradients.scale);
        let losses = &mut losses[start..start + n];
        let pieces = logits.chunks_mut(8 * vocab).zip(targets.chunks(8)).zip(losses.chunks_mut(8));
        pool.each(pieces, |((logits, targets), losses)| {
            vectorized(|| {
                for ((row, &target), loss) in logits.chunks_exact_mut(vocab).zip(targets).zip(losses) {
                    *loss = softmax(row, target, scale);
                }
            });
        });
        if let Some(gradients) = &mut gradients {
            let d_logits = View::new(logits, n, vocab);
            T::gemm(pool, d_logits, table_view, &mut gradients.hidden[rows], false);
            T::gemm(pool, d_logits.t(), hidden, gradients.table, true);
        }
    }
}

/// The loss of one token; turns its logits into their gradients where they are wanted.
#[inline(always)]
fn softmax<T: Real>(logits: &mut [T], target: u32, scale: Option<T>) -> T {
    if target == IGNORED {
        logits.fill(T::ZERO);
        return T::ZERO;
    }
    let most = largest(logits);
    let at_target = logits[target as usize];
    for x in logits.iter_mut() {
        *x = (*x - most).exp();
    }
    let sum = sum2(logits, logits, |x, _| x);
    if let Some(scale) = scale {
        let factor = scale / sum;
        logits.iter_mut().for_each(|x| *x *= factor);
        logits[target as usize] = logits[target as usize] - scale;
    }
    sum.ln() + most - at_target
}
