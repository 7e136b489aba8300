//! The tokens still in the running, and their logits.

use std::cmp::Ordering;

/// One token and its logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) logit: f32,
}

impl Candidate {
    /// Likeliest first, equals by the lowest id: a total order, so every result is the same everywhere.
    pub(super) fn order(&self, other: &Candidate) -> Ordering {
        other.logit.total_cmp(&self.logit).then(self.id.cmp(&other.id))
    }
}

/// First by token id, all of them; after a filter that sorts, likeliest first.
#[derive(Debug)]
pub(super) struct Candidates {
    list: Vec<Candidate>,
    /// How many at the front of `list` are the likeliest ones in order.
    n_sorted: usize,
    /// The cumulative weights of a draw.
    sums: Vec<f64>,
    vocab_len: usize,
}

impl Candidates {
    pub(super) fn with_capacity(vocab_len: usize) -> Candidates {
        Candidates {
            list: Vec::with_capacity(vocab_len),
            n_sorted: 0,
            sums: Vec::with_capacity(vocab_len),
            vocab_len,
        }
    }

    pub(super) fn vocab_len(&self) -> usize {
        self.vocab_len
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    #[cfg(test)]
    pub(super) fn ids(&self) -> Vec<u32> {
        self.list.iter().map(|c| c.id).collect()
    }

    /// Starts over with every token.
    pub(super) fn fill(&mut self, logits: &[f32]) {
        self.list.clear();
        // Adding 0 turns -0 into 0, so that the two are equal in the total order too.
        self.list.extend(logits.iter().zip(0..).map(|(&logit, id)| Candidate { id, logit: logit + 0.0 }));
        self.n_sorted = 0;
    }

    /// Changes one logit. Only before the first filter, while the list is in the order of ids.
    pub(super) fn shape(&mut self, id: usize, change: impl FnOnce(f32) -> f32) {
        let logit = &mut self.list[id].logit;
        // What the model rules out is not brought back. A sum of finite numbers can leave the range of f32.
        if *logit > f32::NEG_INFINITY {
            *logit = change(*logit).min(f32::MAX);
        }
    }

    /// Makes the first `n` the likeliest `n`, in order: a selection and a sort of these alone.
    pub(super) fn sort_front(&mut self, n: usize) {
        let n = n.min(self.list.len());
        if n <= self.n_sorted {
            return;
        }
        if n < self.list.len() {
            self.list.select_nth_unstable_by(n - 1, Candidate::order);
        }
        self.list[..n].sort_unstable_by(Candidate::order);
        self.n_sorted = n;
    }

    /// Keeps the first `n`.
    pub(super) fn truncate(&mut self, n: usize) {
        self.list.truncate(n);
        self.n_sorted = self.n_sorted.min(n);
    }

    /// Keeps those at least as likely as `least`.
    pub(super) fn retain_from(&mut self, least: f64) {
        self.list.retain(|c| f64::from(c.logit) >= least);
        self.n_sorted = self.n_sorted.min(self.list.len());
    }

    pub(super) fn as_slice(&self) -> &[Candidate] {
        &self.list
    }

    /// The list, for a rule that orders it by its own measure.
    pub(super) fn reorder(&mut self) -> &mut [Candidate] {
        self.n_sorted = 0;
        &mut self.list
    }

    /// The largest logit; negative infinity when there is none.
    pub(super) fn max_logit(&self) -> f64 {
        self.list.iter().fold(f64::NEG_INFINITY, |max, c| max.max(f64::from(c.logit)))
    }

    /// Sum of exp(logit - max) over the candidates.
    pub(super) fn total_weight(&self, max: f64) -> f64 {
        self.list.iter().map(|c| (f64::from(c.logit) - max).exp()).sum()
    }

    /// The likeliest token, or `None` when none has a probability.
    pub(super) fn best(&self) -> Option<u32> {
        let best = self.list.iter().min_by(|a, b| a.order(b))?;
        (best.logit > f32::NEG_INFINITY).then_some(best.id)
    }

    /// The token at `uniform` (in [0, 1)) of the cumulative distribution softmax(logit / temperature), or
    /// `None` when none has a probability.
    pub(super) fn draw(&mut self, temperature: f32, uniform: f64) -> Option<u32> {
        let max = self.max_logit();
        if max == f64::NEG_INFINITY {
            return None;
        }
        self.sums.clear();
        let mut sum = 0.0;
        for c in &self.list {
            sum += ((f64::from(c.logit) - max) / f64::from(temperature)).exp();
            self.sums.push(sum);
        }
        // Strictly above: a token of weight 0 repeats the sum before it and is never first.
        let target = uniform * sum;
        let at = self.sums.partition_point(|&sum| sum <= target);
        // Rounding can put the target on the sum itself; then the last token with a weight is meant.
        let at = if at < self.list.len() { at } else { self.sums.partition_point(|&s| s < sum) };
        Some(self.list[at].id)
    }
}
