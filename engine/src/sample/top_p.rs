//! Top-p, the nucleus: the shortest list of likeliest tokens whose probabilities sum to `top_p` or more
//! (Holtzman et al. 2019, arXiv 1904.09751). At least one token stays.

use super::Rule;

/// Tokens sorted at first; the nucleus is seldom larger, and sorting a whole vocabulary is 100 times the work.
const FIRST_FRONT: usize = 64;

pub(super) const RULE: Rule = Rule {
    name: "top_p",
    shapes_logits: false,
    is_active: |params| params.top_p < 1.0,
    apply: |params, _, candidates| {
        let max = candidates.max_logit();
        let target = f64::from(params.top_p) * candidates.total_weight(max);
        let (mut n, mut sum, mut front) = (0, 0.0, FIRST_FRONT);
        while n < candidates.len() {
            candidates.sort_front(front);
            for c in &candidates.as_slice()[n..front.min(candidates.len())] {
                sum += (f64::from(c.logit) - max).exp();
                n += 1;
                if sum >= target {
                    return candidates.truncate(n);
                }
            }
            front *= 8;
        }
    },
};
