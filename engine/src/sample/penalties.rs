//! Penalties on tokens that occurred among the last `repeat_last_n`, n times each:
//!
//! ```text
//! logit' = (logit > 0 ? logit / repeat_penalty : logit * repeat_penalty)
//!          - n * frequency_penalty - presence_penalty
//! ```
//!
//! The first is that of CTRL (Keskar et al. 2019, arXiv 1909.05858), extended to negative logits, which a
//! division would raise; the other two are those of the OpenAI API.

use super::Rule;

pub(super) const RULE: Rule = Rule {
    name: "penalties",
    shapes_logits: true,
    is_active: |params| {
        params.repeat_last_n != 0
            && (params.repeat_penalty != 1.0
                || params.frequency_penalty != 0.0
                || params.presence_penalty != 0.0)
    },
    apply: |params, history, candidates| {
        for (id, &count) in history.counts().iter().enumerate().filter(|(_, count)| **count > 0) {
            candidates.shape(id, |logit| {
                let scaled =
                    if logit > 0.0 { logit / params.repeat_penalty } else { logit * params.repeat_penalty };
                scaled - count as f32 * params.frequency_penalty - params.presence_penalty
            });
        }
    },
};
