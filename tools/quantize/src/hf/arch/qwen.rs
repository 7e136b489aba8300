//! Qwen2 and 2.5, Qwen3, and Qwen3's mixtures of experts.

use super::*;

/// In published models the window is switched off; GGUF cannot say from which layer on it would hold.
const NO_WINDOW: Only = ("use_sliding_window", NO);

pub(super) const QWEN2: Arch = Arch {
    classes: &["Qwen2ForCausalLM"],
    gguf: "qwen2",
    keys: &[CONTEXT, RMS_EPSILON],
    only: &[SILU, NO_WINDOW],
    rope_base: 10000.0,
    rope_factors: false,
    weights: &[OUTPUT_NORM, ATTN_NORM, Q, Q_BIAS, K, K_BIAS, V_BIAS, FFN_NORM, GATE, UP, DOWN],
    more: |config, _| full_attention(config),
};

pub(super) const QWEN3: Arch = Arch {
    classes: &["Qwen3ForCausalLM"],
    gguf: "qwen3",
    only: &[SILU, NO_WINDOW, ("attention_bias", NO)],
    weights: &[OUTPUT_NORM, ATTN_NORM, Q, Q_NORM, K, K_NORM, FFN_NORM, GATE, UP, DOWN],
    ..QWEN2
};

pub(super) const QWEN3MOE: Arch = Arch {
    classes: &["Qwen3MoeForCausalLM"],
    gguf: "qwen3moe",
    keys: &[
        CONTEXT,
        RMS_EPSILON,
        count("num_experts", "expert_count"),
        count("num_experts_per_tok", "expert_used_count"),
        count("moe_intermediate_size", "expert_feed_forward_length"),
    ],
    only: &[
        SILU,
        NO_WINDOW,
        ("attention_bias", NO),
        ("norm_topk_prob", &["true"]),
        ("decoder_sparse_step", &["1"]),
        ("mlp_only_layers", &["[]"]),
    ],
    weights: &[
        OUTPUT_NORM,
        ATTN_NORM,
        Q,
        Q_NORM,
        K,
        K_NORM,
        FFN_NORM,
        weight("blk.{}.ffn_gate_inp.weight", "model.layers.{}.mlp.gate.weight", &[Size::Experts, Size::Embd]),
        weight(
            "blk.{}.ffn_gate_exps.weight",
            "model.layers.{}.mlp.experts.{e}.gate_proj.weight",
            &[Size::ExpertFf, Size::Embd],
        )
        .with(Change::Experts),
        weight(
            "blk.{}.ffn_up_exps.weight",
            "model.layers.{}.mlp.experts.{e}.up_proj.weight",
            &[Size::ExpertFf, Size::Embd],
        )
        .with(Change::Experts),
        weight(
            "blk.{}.ffn_down_exps.weight",
            "model.layers.{}.mlp.experts.{e}.down_proj.weight",
            &[Size::Embd, Size::ExpertFf],
        )
        .with(Change::Experts),
    ],
    more: |config, _| {
        // The library's default is the opposite of what every published model says.
        match config.bool("norm_topk_prob")? {
            Some(_) => full_attention(config),
            None => Err(config.missing("norm_topk_prob")),
        }
    },
    ..QWEN2
};
