//! DRY, "don't repeat yourself" (p-e-w 2024): a token that would make the end of the text a longer copy of an earlier part of it loses
//! more the longer the copy is.
//!
//! ```text
//! logit' = logit - dry_multiplier * dry_base ^ (n - dry_allowed_length)     where n >= dry_allowed_length
//! n        tokens of the longest end of the text that stood earlier with this token behind it
//! ```
//!
//! Unlike a penalty on tokens, it leaves names and brackets alone and ends loops. There are no sequence breakers: line breaks would
//! be the first of them, and loops of code go over lines.

use super::Rule;

pub(super) const RULE: Rule = Rule {
    name: "dry",
    shapes_logits: true,
    is_active: |params| params.dry_multiplier != 0.0 && params.dry_penalty_last_n != 0,
    apply: |params, history, candidates| {
        let allowed = params.dry_allowed_length.max(1);
        history.copies(params.dry_penalty_last_n, allowed, |token, n| {
            let penalty = params.dry_multiplier * params.dry_base.powf((n - allowed) as f32);
            // Only a ban is minus infinity: a penalized token comes where no other may.
            let penalized =
                |logit: f32| if logit.is_finite() { (logit - penalty).max(f32::MIN) } else { logit };
            candidates.shape(token as usize, penalized);
        });
    },
};
