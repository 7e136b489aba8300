//! Granite 3: llama with fixed factors.

use super::*;

pub(super) const GRANITE: Arch = Arch {
    classes: &["GraniteForCausalLM"],
    gguf: "granite",
    keys: &[
        CONTEXT,
        RMS_EPSILON,
        float("embedding_multiplier", "embedding_scale").or(1.0),
        float("residual_multiplier", "residual_scale").or(1.0),
        float("attention_multiplier", "attention.scale").or(1.0),
        float("logits_scaling", "logit_scale").or(1.0),
    ],
    ..super::llama::LLAMA
};
