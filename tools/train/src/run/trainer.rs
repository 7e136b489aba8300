//! The steps of a run.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use cchaha::kernels::Pool;
use cchaha_cli::exit::{Failure, Result};
use cchaha_cli::interrupt::Stoppable;

use super::{Checkpoint, Curve};
use crate::data::{Packer, Position, Store};
use crate::model::{Batch, Network, Step};

/// Time between lines on the terminal.
const TELL: Duration = Duration::from_secs(5);

/// A run under way.
#[derive(Debug)]
pub struct Trainer<'a> {
    pool: &'a Pool,
    /// What the next step depends on.
    pub checkpoint: Checkpoint,
    network: Network<f32>,
    gradients: Vec<f32>,
    packer: Packer<'a>,
    /// Time between checkpoints.
    pub keep: Duration,
}

/// Loss and length of the gradient of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taken {
    /// Nats per token.
    pub loss: f64,
    /// Root of the sum of squares, before clipping.
    pub gradient: f64,
}

impl<'a> Trainer<'a> {
    /// Goes on from a checkpoint, with the data it was made on.
    ///
    /// # Errors
    /// Where there is nothing to learn from.
    pub fn new(pool: &'a Pool, checkpoint: Checkpoint, store: &'a Store) -> Result<Trainer<'a>> {
        let settings = &checkpoint.settings;
        let packer = Packer::new(store, settings.seed, settings.config.context, checkpoint.position)
            .ok_or_else(|| Failure::usage("the corpus holds no text to learn from"))?;
        let network = Network::new(&settings.config);
        let gradients = vec![0.0; network.layout().len()];
        Ok(Trainer { pool, network, gradients, packer, keep: Duration::from_secs(120), checkpoint })
    }

    /// Steps taken.
    pub fn step(&self) -> u64 {
        self.checkpoint.optimizer.step
    }

    /// One step; nothing where `stop` says so before it is complete.
    pub fn take(&mut self, stop: &dyn Fn() -> bool) -> Option<Taken> {
        let settings = &self.checkpoint.settings;
        self.packer.position = self.checkpoint.position;
        self.gradients.fill(0.0);
        let sequences: Vec<_> = (0..settings.batch).map(|_| self.packer.next_sequence()).collect();
        let all = Batch { sequences };
        let targets = all.targets().max(1) as f64;
        let mut loss = 0.0;
        for sequences in all.sequences.chunks(settings.micro.max(1)) {
            if stop() {
                return None;
            }
            let batch = Batch { sequences: sequences.to_vec() };
            let step = Step { scale: (1.0 / targets) as f32, gradients: &mut self.gradients };
            loss += self.network.run(self.pool, &self.checkpoint.weights, &batch, Some(step));
        }
        let factor = settings.schedule.factor(self.checkpoint.optimizer.step);
        let gradient = self.checkpoint.optimizer.update(
            self.pool,
            self.network.layout(),
            &settings.hyper,
            factor,
            &mut self.checkpoint.weights,
            &mut self.gradients,
        );
        self.checkpoint.position = self.packer.position;
        Some(Taken { loss: loss / targets, gradient })
    }

    /// Steps until the schedule ends, telling on stderr how it goes, with checkpoints and a curve in `folder`. On Ctrl-C a checkpoint
    /// is written and the run ends.
    ///
    /// # Errors
    /// Where a file cannot be written, the loss is no number any more, or on Ctrl-C.
    pub fn run(&mut self, folder: &Path, heldout: Option<&Heldout<'_>>) -> Result {
        let unwritable = |error| Failure::other(format!("cannot write into {}: {error}", folder.display()));
        let settings = self.checkpoint.settings.clone();
        let per_step = (settings.batch * settings.config.context) as u64;
        let steps = settings.schedule.steps;
        let mut curve = Curve::open(folder, self.step()).map_err(unwritable)?;
        let stop = Stoppable::begin();
        let (begun, first) = (Instant::now(), self.step());
        let (mut told, mut kept) = (begun, begun);
        while self.step() < steps {
            let Some(taken) = self.take(&|| stop.requested()) else {
                self.checkpoint.save(folder)?;
                curve.draw().map_err(unwritable)?;
                return Err(Failure::interrupted());
            };
            let (step, tokens) = (self.step(), self.step() * per_step);
            curve.step(step, tokens, taken.loss, taken.gradient).map_err(unwritable)?;
            if !taken.loss.is_finite() {
                return Err(Failure::other(format!(
                    "the loss of step {step} is {}; go on from the last checkpoint with lower learning rates",
                    taken.loss
                )));
            }
            if told.elapsed() > TELL || step == steps {
                told = Instant::now();
                let rate = ((step - first) * per_step) as f64 / begun.elapsed().as_secs_f64();
                let left = ((steps - step) * per_step) as f64 / rate;
                eprintln!(
                    "step {step}/{steps}  loss {:.4} (mean of 20: {:.4})  gradient {:.2}  {rate:.0} tokens/s  {} left",
                    taken.loss,
                    curve.recent(),
                    taken.gradient,
                    duration(left)
                );
            }
            if let Some(heldout) = heldout.filter(|heldout| step % heldout.every == 0 || step == steps) {
                match heldout.bits_per_byte(self.pool, &self.checkpoint, &mut self.network, &stop) {
                    ControlFlow::Continue(bits) => {
                        curve.heldout(step, tokens, bits).map_err(unwritable)?;
                        eprintln!(
                            "step {step}/{steps}  held out: {bits:.4} bits per byte\n{}",
                            curve.line(80)
                        );
                    }
                    ControlFlow::Break(()) => {}
                }
            }
            if kept.elapsed() > self.keep || step == steps {
                kept = Instant::now();
                self.checkpoint.save(folder)?;
                curve.draw().map_err(unwritable)?;
            }
        }
        Ok(())
    }
}

/// `2 h 05 min`, `3 min 10 s`.
fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    if s >= 3600 {
        format!("{} h {:02} min", s / 3600, s % 3600 / 60)
    } else {
        format!("{} min {:02} s", s / 60, s % 60)
    }
}

/// Text that is measured and never learned from.
#[derive(Debug)]
pub struct Heldout<'a> {
    /// Its pieces.
    pub store: &'a Store,
    /// Steps between measurements.
    pub every: u64,
    /// Sequences to measure; all where there are fewer.
    pub sequences: usize,
}

impl Heldout<'_> {
    /// Bits per byte of text: the information of all tokens over the bytes they stand for. A part of the text counts as many bytes as
    /// its tokens have on average.
    fn bits_per_byte(
        &self,
        pool: &Pool,
        checkpoint: &Checkpoint,
        network: &mut Network<f32>,
        stop: &Stoppable,
    ) -> ControlFlow<(), f64> {
        let config = &checkpoint.settings.config;
        let Some(mut packer) = Packer::new(self.store, 0, config.context, Position::default()) else {
            return ControlFlow::Continue(f64::NAN);
        };
        let (mut nats, mut targets) = (0.0, 0);
        for _ in 0..self.sequences {
            if packer.position.epoch > 0 || stop.requested() {
                break;
            }
            let batch = Batch { sequences: vec![packer.next_sequence()] };
            nats += network.run(pool, &checkpoint.weights, &batch, None);
            targets += batch.targets();
        }
        if stop.requested() {
            return ControlFlow::Break(());
        }
        let predicted = (self.store.tokens() - self.store.len()) as f64;
        let bytes = targets as f64 * self.store.bytes() as f64 / predicted;
        ControlFlow::Continue(nats / std::f64::consts::LN_2 / bytes)
    }
}
