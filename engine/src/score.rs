//! How likely a model finds given tokens.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::kv::SequenceId;
use crate::model::Model;
use crate::sample::{logprob, top_logprobs};
use crate::scheduler::{Listener, Progress, Request, Scheduler, Wanted};
use crate::session::{self, Batches, Prepared, SessionOptions};
use crate::text::Tokenizer;
use crate::window::{Reader, Seen};

/// Rows of logits per batch at most, and bytes of them: vocabularies are large.
const MAX_ROWS: usize = 128;
const MAX_LOGITS_BYTES: usize = 64 << 20;

/// How to score.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScoreRequest {
    /// Tokens evaluated together; the whole context where not given.
    pub window: Option<usize>,
    /// Tokens each window after the first shares with the one before, as context that is not scored again; half
    /// the window where not given.
    pub overlap: Option<usize>,
    /// How many of the likeliest tokens to keep for each position.
    pub top: usize,
}

/// What a model says about tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// `ln p(tokens[i] | tokens[..i])`, or given the part of `tokens[..i]` in its window; none for the first.
    pub logprobs: Vec<Option<f64>>,
    /// The likeliest tokens in the place of `tokens[i]` with their log-probabilities, falling; empty for the first.
    pub top: Vec<Vec<(u32, f64)>>,
    /// What a token after the last would see of its window.
    pub seen: Seen,
}

/// Scores tokens; those that do not fit in one window are evaluated in overlapping ones.
///
/// # Errors
/// [`crate::ErrorKind::Usage`] for windows that do not fit or do not advance, [`crate::ErrorKind::Interrupted`]
/// where `progress` breaks, and those of [`crate::Session::new`].
pub fn score(
    model: &Arc<Model>,
    options: &SessionOptions,
    tokens: &[u32],
    request: &ScoreRequest,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Scores> {
    session::check_tokens(model, tokens)?;
    let n = tokens.len();
    let mut scores = Scores { logprobs: vec![None; n], top: vec![Vec::new(); n], seen: Seen::default() };
    if n < 2 {
        return Ok(scores);
    }
    // Without a window or a context from the caller, the window is no longer than the tokens need.
    let context = session::context(model, options)?;
    let window = request.window.unwrap_or(context);
    let overlap = request.overlap.unwrap_or(window / 2);
    if !(2..=context).contains(&window) {
        return Err(Error::usage(format!(
            "a window of {window} tokens is out of range; give 2 to {context}, the context"
        )));
    }
    if overlap >= window {
        return Err(Error::usage(format!(
            "windows of {window} tokens cannot overlap by {overlap}; give 0 to {}",
            window - 1
        )));
    }
    let rows = (MAX_LOGITS_BYTES / (4 * model.plan().vocab)).clamp(1, MAX_ROWS);
    let batches = Batches { sequences: 1, logits: rows };
    let Prepared { mut scheduler, mut reader, .. } =
        session::prepare(model, options, window.min(n), batches)?;
    let sequence = scheduler.kv_mut().add();
    let total = total_tokens(n, window, overlap);
    let (mut start, mut done) = (0, 0);
    loop {
        let end = (start + window).min(n);
        // The window before has scored the token after its last.
        let warm_up = if start == 0 { 0 } else { overlap };
        let mut pass = Pass {
            tokens,
            scores: &mut scores,
            top: request.top,
            first: start + warm_up,
            progress,
            done,
            total,
        };
        run(
            &mut scheduler,
            &mut reader,
            model.tokenizer(),
            sequence,
            &tokens[start..end],
            warm_up,
            &mut pass,
        )?;
        done += end - start;
        if end == n {
            scores.seen = reader.seen(&scheduler, sequence);
            return Ok(scores);
        }
        scheduler.kv_mut().truncate(sequence, 0);
        reader.sync(&mut scheduler, sequence, model.tokenizer(), &[]);
        start = end - overlap;
    }
}

/// Tokens evaluated in all windows together.
fn total_tokens(n: usize, window: usize, overlap: usize) -> usize {
    let (mut end, mut total) = (n.min(window), n.min(window));
    while end < n {
        let start = end - overlap;
        end = (start + window).min(n);
        total += end - start;
    }
    total
}

/// Evaluates one window; logits are made only from its `warm_up`-th token on.
fn run(
    scheduler: &mut Scheduler,
    reader: &mut Reader,
    tokenizer: &Tokenizer,
    sequence: SequenceId,
    tokens: &[u32],
    warm_up: usize,
    pass: &mut Pass<'_>,
) -> Result<()> {
    let (context, scored) = tokens.split_at(warm_up);
    for (tokens, logits) in [(context, Wanted::None), (scored, Wanted::All)] {
        let request = Request { sequence, tokens, logits, further: &[] };
        if !tokens.is_empty() && reader.run(scheduler, tokenizer, request, pass)?.is_break() {
            return Err(Error::interrupted());
        }
        pass.done += tokens.len();
    }
    Ok(())
}

struct Pass<'a> {
    tokens: &'a [u32],
    scores: &'a mut Scores,
    top: usize,
    /// Index of the token the first row of logits belongs to.
    first: usize,
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    done: usize,
    total: usize,
}

impl Listener for Pass<'_> {
    fn logits(&mut self, _request: usize, token: usize, logits: &[f32]) -> Result<()> {
        let next = self.first + token + 1;
        if let Some(&id) = self.tokens.get(next) {
            self.scores.logprobs[next] = Some(logprob(logits, id)?);
            if self.top > 0 {
                self.scores.top[next] = top_logprobs(logits, self.top)?;
            }
        }
        Ok(())
    }

    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        (self.progress)(Progress { done: self.done + progress.done, total: self.total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_every_token() {
        assert_eq!(total_tokens(10, 10, 5), 10);
        assert_eq!(total_tokens(11, 10, 5), 10 + 6);
        assert_eq!(total_tokens(21, 10, 5), 10 + 10 + 10 + 6);
    }
}
