//! Running plans on texts: what models say, how far two of them are apart, and what their weights see.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cchaha::kernels::{Cpu, CpuOptions};
use cchaha::plan::{Backend, Footprint, Limits, Observer, Plan, Runner, WeightId};
use cchaha::text::Special;
use cchaha::{Listener, Model, Progress, Request, Scheduler, SequenceId, Wanted};
use cchaha_cli::interrupt::Stoppable;

use crate::exit::{Failure, Result};
use crate::imatrix::Seen;

/// Rows of logits that are made at once: a large vocabulary takes 600 KB for each.
pub(crate) const ROWS: usize = 32;

/// Tokens of a batch at most.
const BATCH: usize = 512;

/// Threads where none are asked for: the kernels keep a core busy, so two on one core gain nothing.
pub(crate) fn backend(threads: Option<usize>) -> Result<Cpu> {
    let options = CpuOptions { threads, ..CpuOptions::default() };
    Ok(Cpu::new(options).map_err(cchaha::Error::from)?)
}

/// A plan with one sequence.
pub(crate) struct Evaluation {
    scheduler: Scheduler,
    sequence: SequenceId,
}

impl Evaluation {
    /// Prepares a plan for sequences of `tokens`.
    pub(crate) fn new(plan: &Arc<Plan>, backend: &dyn Backend, tokens: usize) -> Result<Evaluation> {
        let limits = Limits { cells: tokens, batch: tokens.min(BATCH), logits: ROWS.min(tokens) };
        let mut scheduler = Scheduler::new(plan.clone(), backend, limits, None)?;
        let sequence = scheduler.kv_mut().add();
        Ok(Evaluation { scheduler, sequence })
    }

    /// Forgets all tokens.
    pub(crate) fn reset(&mut self) {
        self.scheduler.kv_mut().truncate(self.sequence, 0);
    }

    /// Appends tokens, and calls `each` with the number of every one and the logits after it.
    pub(crate) fn logits(&mut self, tokens: &[u32], each: &mut dyn FnMut(usize, &[f32]) -> Result) -> Result {
        self.run(tokens, Wanted::All, each)
    }

    /// Appends tokens whose logits nobody wants.
    pub(crate) fn skip(&mut self, tokens: &[u32]) -> Result {
        self.run(tokens, Wanted::None, &mut |_, _| Ok(()))
    }

    fn run(
        &mut self,
        tokens: &[u32],
        logits: Wanted,
        each: &mut dyn FnMut(usize, &[f32]) -> Result,
    ) -> Result {
        if tokens.is_empty() {
            return Ok(());
        }
        let request = Request { sequence: self.sequence, tokens, logits, further: &[] };
        let mut rows = Rows { each, failure: None };
        let outcome = self.scheduler.run(&[request], &mut rows);
        match rows.failure {
            Some(failure) => Err(failure),
            None => Ok(outcome.map(|_| ())?),
        }
    }
}

struct Rows<'a> {
    each: &'a mut dyn FnMut(usize, &[f32]) -> Result,
    failure: Option<Failure>,
}

impl Listener for Rows<'_> {
    fn logits(&mut self, _request: usize, token: usize, logits: &[f32]) -> cchaha::Result<()> {
        (self.each)(token, logits).map_err(|failure| {
            let error = cchaha::Error::new(cchaha::ErrorKind::Other, failure.message());
            self.failure = Some(failure);
            error
        })
    }

    fn progress(&mut self, _progress: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// A text cut into windows of equal length, a beginning-of-text token in front of each where the model wants one. The
/// first half of a window is only context, so that what is measured has some.
#[derive(Clone, Debug)]
pub(crate) struct Windows {
    pub(crate) tokens: Vec<Vec<u32>>,
    pub(crate) len: usize,
}

impl Windows {
    /// Of a file.
    ///
    /// # Errors
    /// Where it cannot be read or is shorter than one window.
    pub(crate) fn read(model: &Model, path: &Path, len: usize, most: Option<usize>) -> Result<Windows> {
        let text = cchaha_cli::input::file(path)?;
        let len = len.min(model.context());
        let tokenizer = model.tokenizer();
        let all = tokenizer.encode(&text, Special::Plain);
        let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
        let body = len - usize::from(bos.is_some());
        let windows = all.chunks_exact(body).map(|tokens| bos.iter().chain(tokens).copied().collect());
        let tokens: Vec<Vec<u32>> = windows.take(most.unwrap_or(usize::MAX)).collect();
        if tokens.is_empty() || len < 4 {
            return Err(Failure::usage(format!(
                "{} has {} tokens, which is less than one window of {len}; give a longer text or a smaller --ctx",
                path.display(),
                all.len()
            )));
        }
        Ok(Windows { tokens, len })
    }

    /// At most `count` of them, from all over the text.
    pub(crate) fn spread(self, count: usize) -> Windows {
        let n = self.tokens.len();
        let kept = (0..count.min(n)).map(|i| self.tokens[i * n / count.min(n)].clone()).collect();
        Windows { tokens: kept, ..self }
    }

    /// Where in each window measuring begins.
    pub(crate) fn half(&self) -> usize {
        self.len / 2
    }

    /// Tokens that are measured in all: the last of a window has nothing after it.
    pub(crate) fn measured(&self) -> usize {
        self.tokens.len() * (self.len - self.half() - 1)
    }
}

/// [`log_sum_exp`](cchaha::sample::log_sum_exp) of what a model gave.
pub(crate) fn log_sum_exp(logits: &[f32]) -> Result<f64> {
    cchaha::sample::log_sum_exp(logits).map_err(|error| Failure::model(format!("a model's output: {error}")))
}

/// The place of the largest logit, the first of equals.
pub(crate) fn top(logits: &[f32]) -> usize {
    (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

/// KL divergence of the distribution of `other` from that of `base`, in nats; `norms` is [`log_sum_exp`] of both.
pub(crate) fn kl_divergence(base: &[f32], other: &[f32], norms: [f64; 2]) -> f64 {
    let shift = norms[1] - norms[0];
    let terms = base.iter().zip(other).map(|(&b, &o)| {
        let p = (f64::from(b) - norms[0]).exp();
        // A token that cannot come has no share, whatever the other says.
        if p == 0.0 { 0.0 } else { p * (f64::from(b) - f64::from(o) + shift) }
    });
    terms.sum::<f64>().max(0.0)
}

/// Runs all windows and collects what every matrix sees, by the name of its weight.
pub(crate) fn collect(
    plan: &Arc<Plan>,
    backend: &dyn Backend,
    windows: &Windows,
    stop: &Stoppable,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<BTreeMap<String, Seen>> {
    let seen = Arc::new(Mutex::new(Inputs { seen: BTreeMap::new() }));
    let observing = Observing { inner: backend, seen: seen.clone(), plan: plan.clone() };
    let mut evaluation = Evaluation::new(plan, &observing, windows.len)?;
    for (i, tokens) in windows.tokens.iter().enumerate() {
        evaluation.reset();
        evaluation.logits(tokens, &mut |_, _| match stop.requested() {
            true => Err(Failure::interrupted()),
            false => Ok(()),
        })?;
        progress((i + 1) * windows.len, windows.tokens.len() * windows.len);
    }
    drop(evaluation);
    let seen = std::mem::take(&mut seen.lock().unwrap_or_else(PoisonError::into_inner).seen);
    Ok(seen.into_iter().map(|(id, seen)| (plan.weight(WeightId(id)).name.clone(), seen)).collect())
}

struct Inputs {
    seen: BTreeMap<u32, Seen>,
}

/// A back end whose runners tell what they multiply.
struct Observing<'a> {
    inner: &'a dyn Backend,
    seen: Arc<Mutex<Inputs>>,
    plan: Arc<Plan>,
}

impl Backend for Observing<'_> {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn footprint(&self, plan: &Plan, limits: &Limits) -> Footprint {
        self.inner.footprint(plan, limits)
    }

    fn prepare(&self, plan: Arc<Plan>, limits: Limits) -> cchaha::plan::Result<Box<dyn Runner>> {
        let mut runner = self.inner.prepare(plan, limits)?;
        runner.observe(Box::new(Squares { seen: self.seen.clone(), plan: self.plan.clone() }))?;
        Ok(runner)
    }
}

/// Sums the squares of what it sees.
struct Squares {
    seen: Arc<Mutex<Inputs>>,
    plan: Arc<Plan>,
}

impl Observer for Squares {
    fn input(&mut self, weight: WeightId, expert: usize, x: &[f32]) {
        let shape = self.plan.weight(weight).shape;
        let mut inputs = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = inputs.seen.entry(weight.0).or_insert_with(|| Seen::new(shape.cols, shape.experts));
        let sums = &mut seen.sums[expert * shape.cols..][..shape.cols];
        for row in x.chunks_exact(shape.cols) {
            for (sum, &x) in sums.iter_mut().zip(row) {
                *sum += f64::from(x) * f64::from(x);
            }
            seen.counts[expert] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_that_of_the_textbook() {
        // p = (1/2, 1/2), q = (1/4, 3/4): KL = ln(2)/2 + ln(2/3)/2
        let (p, q) = ([0.0, 0.0], [0.0, 3f32.ln()]);
        let expected = 0.5 * 2f64.ln() + 0.5 * (2.0f64 / 3.0).ln();
        let norm = |logits: &[f32]| log_sum_exp(logits).unwrap();
        let kl = |base: &[f32], other: &[f32]| kl_divergence(base, other, [norm(base), norm(other)]);
        assert!((kl(&p, &q) - expected).abs() < 1e-7);
        assert_eq!(kl(&q, &q), 0.0);
        // A shift of all logits changes nothing.
        assert!((kl(&[5.0, 5.0], &q) - expected).abs() < 1e-6);
        // What cannot come does not count.
        assert_eq!(kl(&[0.0, f32::NEG_INFINITY], &[0.0, f32::NEG_INFINITY]), 0.0);
        assert!(log_sum_exp(&[0.0, f32::NAN]).is_err());
        assert_eq!(top(&[1.0, 3.0, 3.0]), 1);
    }
}
