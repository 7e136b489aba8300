//! Locally typical sampling (Meister et al. 2022, arXiv 2202.00666): tokens whose surprise -ln p is nearest the
//! entropy H, until their probabilities sum to `typical_p` or more. At least one token stays.

use super::Rule;
use super::candidates::Candidate;

pub(super) const RULE: Rule = Rule {
    name: "typical_p",
    shapes_logits: false,
    is_active: |params| params.typical_p < 1.0,
    apply: |params, _, candidates| {
        let max = candidates.max_logit();
        let log_sum = max + candidates.total_weight(max).ln();
        let logprob = |c: &Candidate| f64::from(c.logit) - log_sum;
        // p ln p tends to 0 with p.
        let entropy: f64 = candidates
            .as_slice()
            .iter()
            .map(&logprob)
            .filter(|lp| lp.is_finite())
            .map(|lp| -lp.exp() * lp)
            .sum();
        let list = candidates.reorder();
        let distance = |c: &Candidate| (logprob(c) + entropy).abs();
        list.sort_unstable_by(|a, b| distance(a).total_cmp(&distance(b)).then(a.order(b)));
        let mut sum = 0.0;
        let n = list.iter().take_while(|c| {
            let more = sum < f64::from(params.typical_p);
            sum += logprob(c).exp();
            more
        });
        let n = n.count().max(1);
        candidates.truncate(n);
    },
};
