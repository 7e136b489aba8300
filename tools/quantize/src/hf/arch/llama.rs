//! LLaMA and those that call themselves so, and Mistral, which adds a sliding window.

use super::*;

/// Also Granite's: biases where the configuration asks for them.
pub(super) const LLAMA_WEIGHTS: &[Weight] = &[
    OUTPUT_NORM,
    ATTN_NORM,
    Q.with(Change::PairRows),
    Q_BIAS.with(Change::PairRows).optional(),
    K.with(Change::PairRows),
    K_BIAS.with(Change::PairRows).optional(),
    V_BIAS.optional(),
    O_BIAS.optional(),
    FFN_NORM,
    GATE,
    UP,
    DOWN,
];

pub(super) const LLAMA: Arch = Arch {
    classes: &["LlamaForCausalLM", "LLaMAForCausalLM"],
    gguf: "llama",
    keys: &[CONTEXT, RMS_EPSILON],
    only: &[SILU, ("mlp_bias", NO)],
    rope_base: 10000.0,
    rope_factors: true,
    weights: LLAMA_WEIGHTS,
    more: nothing,
};

pub(super) const MISTRAL: Arch = Arch {
    classes: &["MistralForCausalLM"],
    more: |config, metadata| window_of_every_layer("llama", config, metadata),
    ..LLAMA
};
