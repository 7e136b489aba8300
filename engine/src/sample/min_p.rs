//! Min-p: tokens at least `min_p` times as likely as the likeliest (Nguyen et al. 2024, arXiv 2407.01082).
//! In logits that is `logit >= max + ln(min_p)`, so no probability is computed.

use super::Rule;

pub(super) const RULE: Rule = Rule {
    name: "min_p",
    shapes_logits: false,
    is_active: |params| params.min_p > 0.0,
    apply: |params, _, candidates| {
        let least = candidates.max_logit() + f64::from(params.min_p).ln();
        candidates.retain_from(least);
    },
};
