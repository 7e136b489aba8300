//! Greedy steps that begin before the token of the one before is known here.

use cchaha_plan::Batch;

use super::Scheduler;
use crate::error::Result;
use crate::kv::SequenceId;

impl Scheduler {
    /// Whether the device has such steps.
    pub(crate) fn goes_ahead(&mut self) -> bool {
        self.runner.greedy().is_some()
    }

    /// Appends one token to a sequence and begins its step; without a token, the likeliest one after the step begun before it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::DoesNotFit`] where no cell is free; those of the runner. The sequence is as it was then.
    pub(crate) fn begin(&mut self, sequence: SequenceId, token: Option<u32>) -> Result<()> {
        let position = self.kv.len(sequence);
        self.kv.append(sequence, 1)?;
        let cell = self.kv.cell(sequence, position).expect("invariant: just appended");
        let at = i32::try_from(position).expect("invariant: far fewer than 2^31 cells");
        self.positions.clear();
        self.positions.resize(self.plan.axes, at);
        let batch = Batch {
            tokens: &[token.unwrap_or(0)],
            positions: &self.positions,
            sequence: &[0],
            cell: &[cell],
            logits: &[0],
            coarse: &[],
            sequences: &[self.kv.pages(sequence)],
            cells: self.kv.cells(),
        };
        let begun = match self.runner.greedy() {
            Some(greedy) => greedy.begin(&batch, token.is_none()),
            None => Err(cchaha_plan::Error::usage("this device has no greedy steps")),
        };
        if begun.is_err() {
            self.kv.truncate(sequence, position);
        }
        Ok(begun?)
    }

    /// Waits for the oldest step begun and returns the likeliest token after it.
    ///
    /// # Errors
    /// Those of the runner.
    pub(crate) fn finish(&mut self) -> Result<u32> {
        match self.runner.greedy() {
            Some(greedy) => Ok(greedy.finish()?),
            None => Err(cchaha_plan::Error::usage("this device has no greedy steps").into()),
        }
    }
}
