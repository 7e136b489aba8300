//! The recent tokens, as the penalties need them: how often each occurs.

use std::collections::VecDeque;

/// Counts of the tokens in a sliding window.
#[derive(Debug)]
pub(super) struct History {
    /// The window, oldest first; stays empty when the window is all tokens, for then none ever leaves.
    window: VecDeque<u32>,
    /// Its length in tokens; `None` counts all.
    limit: Option<usize>,
    /// Occurrences in the window, by token id; empty when the window is 0.
    counts: Vec<u32>,
}

impl History {
    /// `last_n` as in `repeat_last_n`: 0 no token, negative all of them.
    pub(super) fn new(last_n: i32, vocab_len: usize) -> History {
        let counts = if last_n == 0 { Vec::new() } else { vec![0; vocab_len] };
        History { window: VecDeque::new(), limit: usize::try_from(last_n).ok(), counts }
    }

    /// Adds a token; one that is not in the vocabulary has no logit to penalize and is passed over.
    pub(super) fn push(&mut self, token: u32) {
        let Some(count) = self.counts.get_mut(token as usize) else { return };
        *count = count.saturating_add(1);
        let Some(limit) = self.limit else { return };
        if self.window.len() == limit {
            let oldest = self.window.pop_front();
            if let Some(count) = oldest.and_then(|oldest| self.counts.get_mut(oldest as usize)) {
                *count -= 1;
            }
        }
        self.window.push_back(token);
    }

    /// Occurrences by token id.
    pub(super) fn counts(&self) -> &[u32] {
        &self.counts
    }
}
