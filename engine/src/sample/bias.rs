//! Logit bias: a constant added to the logits of chosen tokens; negative infinity bans one.

use super::Rule;

pub(super) const RULE: Rule = Rule {
    name: "logit_bias",
    shapes_logits: true,
    is_active: |params| !params.logit_bias.is_empty(),
    apply: |params, _, candidates| {
        for &(token, bias) in &params.logit_bias {
            candidates.shape(token as usize, |logit| logit + bias);
        }
    },
};
