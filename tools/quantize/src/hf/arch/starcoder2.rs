//! StarCoder2.

use super::*;

pub(super) const STARCODER2: Arch = Arch {
    classes: &["Starcoder2ForCausalLM"],
    gguf: "starcoder2",
    keys: &[CONTEXT, float("norm_epsilon", "attention.layer_norm_epsilon").or(1e-5)],
    only: &[
        ("hidden_act", GELU_TANH),
        ("use_bias", &["true"]),
        ("mlp_type", &["\"default\""]),
        ("norm_type", &["\"layer_norm\""]),
    ],
    rope_base: 10000.0,
    rope_factors: false,
    weights: &[
        OUTPUT_NORM,
        weight("output_norm.bias", "model.norm.bias", &[Size::Embd]),
        ATTN_NORM,
        weight("blk.{}.attn_norm.bias", "model.layers.{}.input_layernorm.bias", &[Size::Embd]),
        Q,
        Q_BIAS,
        K,
        K_BIAS,
        V_BIAS,
        O_BIAS,
        FFN_NORM,
        weight("blk.{}.ffn_norm.bias", "model.layers.{}.post_attention_layernorm.bias", &[Size::Embd]),
        weight("blk.{}.ffn_up.weight", "model.layers.{}.mlp.c_fc.weight", &[Size::Ff, Size::Embd]),
        weight("blk.{}.ffn_up.bias", "model.layers.{}.mlp.c_fc.bias", &[Size::Ff]),
        weight("blk.{}.ffn_down.weight", "model.layers.{}.mlp.c_proj.weight", &[Size::Embd, Size::Ff]),
        weight("blk.{}.ffn_down.bias", "model.layers.{}.mlp.c_proj.bias", &[Size::Embd]),
    ],
    // Readers that do not know this key see everything, as converters have always had it.
    more: |config, metadata| window_of_every_layer("starcoder2", config, metadata),
};
