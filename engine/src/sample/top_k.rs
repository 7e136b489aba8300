//! Top-k: the k likeliest tokens (Fan et al. 2018, arXiv 1805.04833).

use super::Rule;

pub(super) const RULE: Rule = Rule {
    name: "top_k",
    shapes_logits: false,
    is_active: |params| params.top_k > 0,
    apply: |params, _, candidates| {
        candidates.sort_front(params.top_k);
        candidates.truncate(params.top_k);
    },
};
