//! Greedy generation on a device that chooses the token itself: the next step runs there while the token of the last one is
//! decoded and printed here, and no logits are read back.

use std::ops::ControlFlow;

use super::Session;
use crate::error::{ErrorKind, Result};
use crate::sample::{SampleParams, Sampler};

impl Session {
    /// Whether [`Session::step`] serves: the device chooses tokens, and nothing here has to read a token before the next one is
    /// evaluated.
    pub fn goes_ahead(&mut self) -> bool {
        !self.reader.reads() && self.scheduler.goes_ahead()
    }

    /// Appends a token and returns the likeliest one after it, with the step of that one already begun. [`Session::logits`] are
    /// empty afterwards. Where the device fails, the step is done again without it.
    ///
    /// # Errors
    /// Those of [`Session::feed`].
    pub fn step(&mut self, token: u32) -> Result<u32> {
        self.check_tokens(&[token])?;
        self.check_length(self.tokens.len() + 1)?;
        if self.begun != Some(token) {
            self.settle();
        }
        self.logits.clear();
        let before = self.tokens.len();
        match self.try_step(token) {
            Ok(next) if (next as usize) < self.model.plan().vocab => Ok(next),
            Err(error) if !matches!(error.kind(), ErrorKind::Device | ErrorKind::DoesNotFit) => Err(error),
            // No logit is a number, which the sampler will say; or the device failed.
            Ok(_) | Err(_) => {
                self.settle();
                self.truncate(before);
                self.feed(&[token], &mut |_| ControlFlow::Continue(()))?;
                let mut sampler = Sampler::new(SampleParams::greedy(), self.logits.len())?;
                Ok(sampler.sample(&self.logits)?.id)
            }
        }
    }

    fn try_step(&mut self, token: u32) -> Result<u32> {
        if self.begun.take().is_none() {
            self.scheduler.begin(self.sequence, Some(token))?;
        }
        self.tokens.push(token);
        let further = self.tokens.len() < self.context;
        if further {
            self.scheduler.begin(self.sequence, None)?;
        }
        let next = self.scheduler.finish()?;
        self.begun = further.then_some(next);
        Ok(next)
    }

    /// Takes back the step that was begun ahead.
    pub(crate) fn settle(&mut self) {
        if self.scheduler.kv().len(self.sequence) > self.tokens.len() {
            while self.scheduler.goes_ahead() && self.scheduler.finish().is_ok() {}
            self.scheduler.kv_mut().truncate(self.sequence, self.tokens.len());
        }
        self.begun = None;
    }
}
