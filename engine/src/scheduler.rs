//! Turns what sequences want evaluated into batches: long inputs in chunks, several sequences in one batch.

mod ahead;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cchaha_plan::{Backend, Batch, Limits, Observer, PAGE_CELLS, Plan, Runner};

use crate::error::{Error, Result};
use crate::kv::{KvTable, SequenceId};

/// Of which tokens the logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nobody's.
    None,
    /// The last token's.
    Last,
    /// Every token's.
    All,
}

/// Tokens to append to a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Where they go.
    pub sequence: SequenceId,
    /// At least one.
    pub tokens: &'a [u32],
    /// Which logits come back.
    pub logits: Wanted,
    /// Positions on the plan's axes beyond the first, `[tokens, axes - 1]`; where empty, the place in the sequence
    /// serves on all of them.
    pub further: &'a [i32],
}

/// How far a run has come, in tokens of all its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tokens evaluated.
    pub done: usize,
    /// Tokens to evaluate.
    pub total: usize,
}

/// Hears of logits and progress during a run. Closures over both would borrow their target twice.
pub trait Listener {
    /// Logits `[vocab]` after token `token` of request `request`; they come in order for each request.
    ///
    /// # Errors
    /// What is wrong with them; it ends the run as a failure of the batch.
    fn logits(&mut self, request: usize, token: usize, logits: &[f32]) -> Result<()>;

    /// Called after every batch; `Break` ends the run there.
    fn progress(&mut self, progress: Progress) -> ControlFlow<()>;
}

/// Smallest first chunk while chunks are sized by time: enough for a matrix product to be one.
const FIRST_CHUNK: usize = 32;

/// Tokens of a request from which on those without logits are coarse ([`Batch::coarse`]): fewer take little time either way.
const COARSE_FROM: usize = 64;

/// The first tokens of a sequence, which all others attend to (arXiv 2309.17453), are never coarse: that takes the error of what follows
/// 512 coarse tokens from 0.0065 to 0.0029 nats in Qwen2.5-Coder-0.5B, and to 0.0020 if the last 128 are not either.
const FINE_HEAD: usize = 16;

/// A runner with its KV table: the only place batches are made.
pub struct Scheduler {
    plan: Arc<Plan>,
    runner: Box<dyn Runner>,
    kv: KvTable,
    limits: Limits,
    response: Option<Duration>,
    chunk: usize,
    tokens: Vec<u32>,
    positions: Vec<i32>,
    sequence: Vec<u32>,
    cell: Vec<u32>,
    logits: Vec<u32>,
    /// Which tokens are only read; see [`Batch::coarse`].
    coarse: Vec<bool>,
    /// For every row of logits: which request, which of its tokens.
    rows: Vec<(usize, usize)>,
}

impl Scheduler {
    /// Prepares `plan` on `backend`. With `response`, batches of long inputs are sized so that each takes about
    /// that long, and a run can stop between them; what is computed does not depend on it.
    ///
    /// # Errors
    /// Those of [`Backend::prepare`].
    pub fn new(
        plan: Arc<Plan>,
        backend: &dyn Backend,
        limits: Limits,
        response: Option<Duration>,
    ) -> Result<Scheduler> {
        let runner = backend.prepare(plan.clone(), limits)?;
        let chunk = if response.is_some() { FIRST_CHUNK.min(limits.batch) } else { limits.batch };
        Ok(Scheduler {
            plan,
            runner,
            kv: KvTable::new(limits.cells),
            limits,
            response,
            chunk,
            tokens: Vec::with_capacity(limits.batch),
            positions: Vec::with_capacity(limits.batch),
            sequence: Vec::with_capacity(limits.batch),
            cell: Vec::with_capacity(limits.batch),
            logits: Vec::with_capacity(limits.logits),
            coarse: Vec::with_capacity(limits.batch),
            rows: Vec::with_capacity(limits.logits),
        })
    }

    /// The table of cells.
    pub fn kv(&self) -> &KvTable {
        &self.kv
    }

    /// The table of cells, to add, fork, cut and end sequences.
    pub fn kv_mut(&mut self) -> &mut KvTable {
        &mut self.kv
    }

    /// Folds the sequence's positions before `before`, a multiple of [`PAGE_CELLS`] as are `keep` and the sequence's length: `keep` of
    /// their cells stay, the first `sinks` among them. Nothing happens where there are no more than those, or where another
    /// sequence holds some of their pages.
    ///
    /// # Errors
    /// Those of [`Runner::fold`].
    pub(crate) fn fold(&mut self, id: SequenceId, before: usize, sinks: usize, keep: usize) -> Result<()> {
        let Some(old) = self.kv.own_pages(id, before / PAGE_CELLS) else { return Ok(()) };
        if old * PAGE_CELLS > keep {
            self.runner.fold(self.kv.pages(id), old, sinks, keep)?;
            self.kv.fold(id, before / PAGE_CELLS, keep / PAGE_CELLS);
        }
        Ok(())
    }

    /// Shows `observer` what the runner works on.
    ///
    /// # Errors
    /// As [`Runner::observe`].
    pub(crate) fn observe(&mut self, observer: Box<dyn Observer>) -> Result<()> {
        Ok(self.runner.observe(observer)?)
    }

    /// Evaluates all tokens of all requests, each sequence at most once, and tells `listener` of the logits.
    /// Where it stops early (`Break`, or an error), every sequence holds what was evaluated and no more.
    ///
    /// # Errors
    /// [`crate::ErrorKind::DoesNotFit`] before anything is evaluated where cells are short; those of the runner.
    pub fn run(&mut self, requests: &[Request<'_>], listener: &mut dyn Listener) -> Result<ControlFlow<()>> {
        let before: Vec<usize> = requests.iter().map(|r| self.kv.len(r.sequence)).collect();
        let total = requests.iter().map(|request| request.tokens.len()).sum();
        self.check_room(requests)?;
        let mut next = vec![0; requests.len()];
        let mut done = 0;
        while done < total {
            let started = Instant::now();
            let outcome = self.fill(requests, &next).and_then(|taken| {
                self.run_batch(requests, listener)?;
                Ok(taken)
            });
            let taken = match outcome {
                Ok(taken) => taken,
                Err(error) => {
                    for (i, request) in requests.iter().enumerate() {
                        self.kv.truncate(request.sequence, before[i] + next[i]);
                    }
                    return Err(error);
                }
            };
            self.resize_chunk(self.tokens.len(), started.elapsed());
            next.iter_mut().zip(&taken).for_each(|(next, taken)| *next += taken);
            done += self.tokens.len();
            if listener.progress(Progress { done, total }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn check_room(&self, requests: &[Request<'_>]) -> Result<()> {
        let needed: usize = requests
            .iter()
            .map(|request| {
                let len = self.kv.len(request.sequence);
                (len + request.tokens.len()).div_ceil(PAGE_CELLS) - len.div_ceil(PAGE_CELLS)
            })
            .sum();
        let free = self.kv.free_cells();
        if needed * PAGE_CELLS > free {
            return Err(Error::new(
                crate::ErrorKind::DoesNotFit,
                format!(
                    "the KV cache is too small: {} more cells are needed and {free} are free; \
                     give a larger context with --ctx",
                    needed * PAGE_CELLS
                ),
            ));
        }
        Ok(())
    }

    /// Fills the batch from the requests in order; how many tokens each gave.
    fn fill(&mut self, requests: &[Request<'_>], next: &[usize]) -> Result<Vec<usize>> {
        self.tokens.clear();
        self.positions.clear();
        self.sequence.clear();
        self.cell.clear();
        self.logits.clear();
        self.coarse.clear();
        self.rows.clear();
        let mut taken = vec![0; requests.len()];
        for (i, request) in requests.iter().enumerate() {
            let left = &request.tokens[next[i]..];
            let mut n = left.len().min(self.chunk - self.tokens.len());
            let rows = self.limits.logits - self.logits.len();
            match request.logits {
                Wanted::All => n = n.min(rows),
                Wanted::Last if n == left.len() && rows == 0 => n = n.saturating_sub(1),
                Wanted::Last | Wanted::None => {}
            }
            if n == 0 {
                continue;
            }
            let long = request.tokens.len() >= COARSE_FROM;
            let first = self.kv.len(request.sequence);
            self.kv.append(request.sequence, n)?;
            for (t, &token) in left[..n].iter().enumerate() {
                let wanted = match request.logits {
                    Wanted::None => false,
                    Wanted::Last => next[i] + t + 1 == request.tokens.len(),
                    Wanted::All => true,
                };
                self.coarse.push(long && !wanted && first + t >= FINE_HEAD);
                if wanted {
                    self.logits.push(self.tokens.len() as u32);
                    self.rows.push((i, next[i] + t));
                }
                let position = i32::try_from(first + t).expect("invariant: far fewer than 2^31 cells");
                self.tokens.push(token);
                let further = self.plan.axes - 1;
                self.positions.push(position);
                match request.further.get((next[i] + t) * further..(next[i] + t + 1) * further) {
                    Some(given) if !request.further.is_empty() => self.positions.extend(given),
                    _ => self.positions.extend(std::iter::repeat_n(position, further)),
                }
                self.sequence.push(i as u32);
                self.cell.push(self.kv.cell(request.sequence, first + t).expect("invariant: just appended"));
            }
            taken[i] = n;
        }
        Ok(taken)
    }

    fn run_batch(&mut self, requests: &[Request<'_>], listener: &mut dyn Listener) -> Result<()> {
        let pages: Vec<&[u32]> = requests.iter().map(|request| self.kv.pages(request.sequence)).collect();
        let batch = Batch {
            tokens: &self.tokens,
            positions: &self.positions,
            sequence: &self.sequence,
            cell: &self.cell,
            logits: &self.logits,
            coarse: &self.coarse,
            sequences: &pages,
            cells: self.kv.cells(),
        };
        let logits = self.runner.run(&batch)?;
        for (row, &(request, token)) in logits.chunks_exact(self.plan.vocab).zip(&self.rows) {
            listener.logits(request, token, row)?;
        }
        Ok(())
    }

    /// Follows the measured speed, at most doubling, in whole pages.
    fn resize_chunk(&mut self, n: usize, elapsed: Duration) {
        let Some(response) = self.response else { return };
        if n < self.chunk {
            return;
        }
        let fitting = (n as f64 * response.as_secs_f64() / elapsed.as_secs_f64().max(1e-6)) as usize;
        let whole = fitting.min(2 * n) / PAGE_CELLS * PAGE_CELLS;
        self.chunk = whole.max(FIRST_CHUNK).min(self.limits.batch);
    }
}
