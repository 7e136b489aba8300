//! Bits per byte of raw text, every token counted: how well a model predicts text, whatever its vocabulary.
//!
//! A document begins after the token that begins or ends texts, so its first token counts too; the end of the document is no token
//! of it. It is read in windows that overlap by half, and what was predicted once is not counted again.

use std::ops::ControlFlow;
use std::sync::Arc;

use cchaha::code::{Language, PLAIN};
use cchaha::kernels::Pool;
use cchaha::text::{Special, Tokenizer};
use cchaha::{Model, ScoreRequest, SessionOptions, score};
use cchaha_cli::exit::{Failure, Result};

use crate::corpus::Document;
use crate::data::{STAGES, Tokens};
use crate::model::{Batch, Network, Sequence};
use crate::ops::loss::IGNORED;
use crate::rng::Rng;
use crate::run::Checkpoint;

/// What a document costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Bytes of text.
    pub bytes: usize,
    /// Tokens that were predicted.
    pub tokens: usize,
    /// Information of all of them.
    pub bits: f64,
}

impl Cost {
    /// Of several documents together.
    pub fn sum<'a>(costs: impl IntoIterator<Item = &'a Cost>) -> Cost {
        costs.into_iter().fold(Cost::default(), |sum, cost| Cost {
            bytes: sum.bytes + cost.bytes,
            tokens: sum.tokens + cost.tokens,
            bits: sum.bits + cost.bits,
        })
    }

    /// Bits per byte.
    pub fn bits_per_byte(&self) -> f64 {
        self.bits / self.bytes as f64
    }
}

/// About `bytes` bytes of documents, the same ones every time, in an order drawn by lot; all where `bytes` is 0.
pub fn sample(mut documents: Vec<Document>, bytes: usize) -> Vec<Document> {
    Rng::new(0, 4).shuffle(&mut documents);
    let mut taken = 0;
    documents.retain(|document| {
        let keep = bytes == 0 || taken < bytes;
        taken += if keep { document.text.len() } else { 0 };
        keep && !document.text.is_empty()
    });
    documents
}

/// What every document costs the model of a GGUF file, through the engine. `seen` is told the documents that are done.
///
/// # Errors
/// Where the engine cannot run it, and where `seen` breaks off.
pub fn of_model(
    model: &Arc<Model>,
    options: &SessionOptions,
    documents: &[Document],
    window: usize,
    seen: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Vec<Cost>> {
    let tokenizer = model.tokenizer();
    let request = ScoreRequest { window: Some(window), ..ScoreRequest::default() };
    let mut costs = Vec::new();
    for document in documents {
        if seen(costs.len()).is_break() {
            return Err(Failure::interrupted());
        }
        let mut options = options.clone();
        options.window.language = Language::named(&document.language).unwrap_or(&PLAIN);
        let mut tokens = vec![beginning(tokenizer)?];
        tokens.extend(tokenizer.encode(&document.text, Special::Plain));
        let scores = score(model, &options, &tokens, &request, &mut |_| ControlFlow::Continue(()))?;
        let nats: f64 = scores.logprobs.iter().flatten().map(|logprob| -logprob).sum();
        costs.push(Cost {
            bytes: document.text.len(),
            tokens: tokens.len() - 1,
            bits: nats / std::f64::consts::LN_2,
        });
    }
    Ok(costs)
}

fn beginning(tokenizer: &Tokenizer) -> Result<u32> {
    let missing = || Failure::model("the vocabulary has no token that begins or ends a text");
    tokenizer.bos().or(tokenizer.eos()).ok_or_else(missing)
}

/// What every document costs a checkpoint, through the network it is trained with. `change` may change what is known of tokens.
///
/// # Errors
/// Where the vocabulary has no token to begin with, and where `seen` breaks off.
pub fn of_checkpoint(
    pool: &Pool,
    checkpoint: &Checkpoint,
    tokenizer: &Tokenizer,
    documents: &[Document],
    change: &dyn Fn(&mut Tokens),
    seen: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Vec<Cost>> {
    beginning(tokenizer)?;
    let len = checkpoint.settings.config.context;
    let mut network = Network::<f32>::new(&checkpoint.settings.config);
    let mut costs: Vec<Cost> =
        documents.iter().map(|document| Cost { bytes: document.text.len(), ..Cost::default() }).collect();
    // A sequence in the making, and the document of every token in it.
    let (mut sequence, mut owners) = (Sequence::default(), Vec::new());
    let mut flush = |sequence: &mut Sequence, owners: &mut Vec<usize>, costs: &mut [Cost]| {
        sequence.pad(len);
        let batch = Batch { sequences: vec![std::mem::take(sequence)] };
        network.run(pool, &checkpoint.weights, &batch, None);
        let counted = batch.sequences[0].targets.iter().map(|&target| target != IGNORED);
        for ((owner, loss), counted) in owners.drain(..).zip(&network.losses).zip(counted) {
            costs[owner].bits += f64::from(*loss) / std::f64::consts::LN_2;
            costs[owner].tokens += usize::from(counted);
        }
    };
    for (number, document) in documents.iter().enumerate() {
        if seen(number).is_break() {
            return Err(Failure::interrupted());
        }
        for mut piece in (STAGES[0].pieces)(tokenizer, document, len, &mut Rng::new(0, 0)) {
            change(&mut piece);
            // The end of the document is no token of it.
            let n = piece.tokens.len() - usize::from(tokenizer.eos().is_some());
            for (start, counted) in windows(n - 1, len) {
                let inputs = len.min(n - 1 - start);
                if sequence.tokens.len() + inputs > len {
                    flush(&mut sequence, &mut owners, &mut costs);
                }
                push(&mut sequence, &piece, start, inputs, counted);
                owners.resize(sequence.tokens.len(), number);
            }
        }
    }
    if !sequence.tokens.is_empty() {
        flush(&mut sequence, &mut owners, &mut costs);
    }
    Ok(costs)
}

/// Windows of `len` over `n` inputs: where each begins, and from which of its inputs on predictions count.
fn windows(n: usize, len: usize) -> Vec<(usize, usize)> {
    let step = (len / 2).max(1);
    let mut windows = vec![(0, 0)];
    while let Some(&(start, _)) = windows.last()
        && start + len < n
    {
        windows.push((start + step, len - step));
    }
    windows
}

fn push(sequence: &mut Sequence, piece: &Tokens, start: usize, inputs: usize, counted: usize) {
    let range = start..start + inputs + 1;
    let first = sequence.tokens.len();
    sequence.push(&piece.tokens[range.clone()], &piece.scopes[range.clone()], &piece.pinned[range]);
    sequence.targets[first..first + counted.min(inputs)].fill(IGNORED);
}

#[cfg(test)]
mod tests {
    use super::windows;

    #[test]
    fn every_input_counts_in_one_window() {
        for (n, len) in [(1, 8), (8, 8), (9, 8), (100, 8), (23, 7)] {
            let mut counted = vec![0; n];
            for (start, from) in windows(n, len) {
                (start + from..(start + len).min(n)).for_each(|i| counted[i] += 1);
            }
            assert!(counted.iter().all(|&count| count == 1), "{n} in windows of {len}: {counted:?}");
        }
    }
}
