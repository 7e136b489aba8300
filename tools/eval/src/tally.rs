//! How far a study is, on stderr.

use std::collections::HashSet;

use cchaha_cli::exit::Result;
use cchaha_cli::interrupt::Stoppable;
use cchaha_cli::output::{Progress, Unit, progress_in};

use crate::store::Store;

/// Counts the results of a study: those of earlier runs, and those that come.
#[derive(Debug)]
pub(crate) struct Tally {
    bar: Progress,
    noun: &'static str,
    done: usize,
    total: usize,
}

impl Tally {
    /// Of a study that is to have results of these keys; `message` says what it does, and `noun` of what, as in `scoring` and
    /// `runs`.
    pub(crate) fn begin(
        message: &str,
        noun: &'static str,
        store: &Store,
        keys: impl IntoIterator<Item = String>,
    ) -> Tally {
        let keys: HashSet<String> = keys.into_iter().collect();
        let done = keys.iter().filter(|key| store.get(key).is_some()).count();
        let mut bar = progress_in(Unit::Items(noun), message);
        bar.at(done, keys.len());
        Tally { bar, noun, done, total: keys.len() }
    }

    /// One more result is kept.
    pub(crate) fn add(&mut self) {
        self.done += 1;
        self.bar.at(self.done, self.total);
    }

    /// Ends the bar; where Ctrl-C ended the study, the failure says how far it came.
    pub(crate) fn end(self, result: Result, stop: &Stoppable) -> Result {
        let Tally { noun, done, total, .. } = self;
        result.map_err(|failure| {
            if !stop.requested() {
                return failure;
            }
            failure.hint(format!("{done} of {total} {noun} are done; the same command goes on"))
        })
    }
}
