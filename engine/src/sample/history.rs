//! The tokens so far, as the penalties need them: how often each occurs among the last, and what the end of the text copies.

use std::collections::VecDeque;

/// Counts of the tokens in a sliding window, and the text.
#[derive(Debug)]
pub(super) struct History {
    /// The window, oldest first; stays empty when the window is all tokens, for then none ever leaves.
    window: VecDeque<u32>,
    /// Its length in tokens; `None` counts all.
    limit: Option<usize>,
    /// Occurrences in the window, by token id; empty when the window is 0.
    counts: Vec<u32>,
    /// All tokens; stays empty where nobody asks for copies.
    text: Option<Vec<u32>>,
    /// For [`History::copies`]: lengths of matches by place, and the longest by token.
    matches: Vec<u32>,
    longest: Vec<u32>,
}

impl History {
    /// `last_n` as in `repeat_last_n`: 0 no token, negative all of them. `copies` says whether [`History::copies`] will be asked for.
    pub(super) fn new(last_n: i32, copies: bool, vocab_len: usize) -> History {
        History {
            window: VecDeque::new(),
            limit: usize::try_from(last_n).ok(),
            counts: if last_n == 0 { Vec::new() } else { vec![0; vocab_len] },
            text: copies.then(Vec::new),
            matches: Vec::new(),
            longest: if copies { vec![0; vocab_len] } else { Vec::new() },
        }
    }

    /// Adds a token; one that is not in the vocabulary has no logit to penalize and is passed over.
    pub(super) fn push(&mut self, token: u32) {
        if let Some(text) = &mut self.text {
            text.push(token);
        }
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

    /// For every token that stood behind an earlier copy of at least `shortest` of the text's last tokens: the length of the longest such
    /// copy. Looks at the last `last_n` tokens, negative: at all. Takes time linear in them.
    pub(super) fn copies(&mut self, last_n: i32, shortest: u32, mut found: impl FnMut(u32, u32)) {
        let Some(text) = &self.text else { return };
        let n = usize::try_from(last_n).map_or(text.len(), |last_n| last_n.min(text.len()));
        let text = &text[text.len() - n..];
        let back = |i: usize| text[n - 1 - i];
        // The Z algorithm on the reversed text: matches[i] tokens before the last i are the text's last.
        self.matches.clear();
        self.matches.resize(n, 0);
        let (mut left, mut right) = (0, 0);
        for i in 1..n {
            let mut len = if i < right { (self.matches[i - left] as usize).min(right - i) } else { 0 };
            while i + len < n && back(len) == back(i + len) {
                len += 1;
            }
            if i + len > right {
                (left, right) = (i, i + len);
            }
            self.matches[i] = len as u32;
        }
        let behind = |i: usize| back(i - 1);
        for i in (1..n).filter(|&i| self.matches[i] >= shortest) {
            if let Some(longest) = self.longest.get_mut(behind(i) as usize) {
                *longest = (*longest).max(self.matches[i]);
            }
        }
        for token in (1..n).map(behind) {
            let Some(longest) = self.longest.get_mut(token as usize) else { continue };
            let len = std::mem::take(longest);
            if len > 0 {
                found(token, len);
            }
        }
    }
}
