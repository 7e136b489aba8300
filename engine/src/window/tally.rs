//! How often queries choose each page of the cache.

use std::sync::{Arc, Mutex, PoisonError};

use cchaha_plan::Observer;

/// Counts of one session, by page; shared with the runner that it observes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Arc<Mutex<Vec<u64>>>);

impl Tally {
    /// Times a query of any layer and KV head chose this page.
    pub(super) fn of(&self, page: usize) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(page).copied().unwrap_or(0)
    }

    /// Begins anew: pages of a text that was cut hold another one.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Observer for Tally {
    fn chosen(&mut self, page: usize) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() <= page {
            counts.resize(page + 1, 0);
        }
        counts[page] += 1;
    }
}
