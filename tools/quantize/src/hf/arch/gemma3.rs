//! Gemma 3, of which only the text part is converted. Published files leave out what the library has as a default.

use super::*;

pub(super) const GEMMA3: Arch = Arch {
    classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
    gguf: "gemma3",
    keys: &[
        CONTEXT.or(131072.0),
        RMS_EPSILON.or(1e-6),
        count("num_attention_heads", "attention.head_count").or(8.0),
        count("num_key_value_heads", "attention.head_count_kv").or(4.0),
        count("head_dim", "attention.key_length").or(256.0),
        count("sliding_window", "attention.sliding_window").or(4096.0),
        float("attn_logit_softcapping", "attn_logit_softcapping").optional(),
        float("final_logit_softcapping", "final_logit_softcapping").optional(),
    ],
    only: &[("hidden_activation", GELU_TANH), ("attention_bias", NO), ("use_bidirectional_attention", NO)],
    rope_base: 1e6,
    rope_factors: false,
    weights: &[
        OUTPUT_NORM.with(Change::PlusOne),
        ATTN_NORM.with(Change::PlusOne),
        Q,
        Q_NORM.with(Change::PlusOne),
        K,
        K_NORM.with(Change::PlusOne),
        weight(
            "blk.{}.post_attention_norm.weight",
            "model.layers.{}.post_attention_layernorm.weight",
            &[Size::Embd],
        )
        .with(Change::PlusOne),
        weight("blk.{}.ffn_norm.weight", "model.layers.{}.pre_feedforward_layernorm.weight", &[Size::Embd])
            .with(Change::PlusOne),
        GATE,
        UP,
        DOWN,
        weight(
            "blk.{}.post_ffw_norm.weight",
            "model.layers.{}.post_feedforward_layernorm.weight",
            &[Size::Embd],
        )
        .with(Change::PlusOne),
    ],
    more,
};

/// Layers of the 27B model, the only one that GGUF's readers scale by `1 / sqrt(n_embd / n_heads)`.
const LAYERS_OF_27B: u32 = 62;
/// Every sixth layer sees everything; readers take that for granted.
const PERIOD: u32 = 6;

fn more(config: &Object, metadata: &mut Metadata) -> Result {
    let count = |name: &str| {
        Ok::<_, crate::exit::Failure>(
            metadata.u32(&format!("gemma3.{name}")).map_err(cchaha::Error::from)?.unwrap_or(0),
        )
    };
    let (n_layers, n_embd) = (count("block_count")?, count("embedding_length")?);
    let (n_heads, head_dim) = (count("attention.head_count")?, count("attention.key_length")?);
    let scalar = config.f32("query_pre_attn_scalar")?.unwrap_or(256.0);
    let scaled_by = if n_layers == LAYERS_OF_27B { n_embd / n_heads.max(1) } else { head_dim };
    if scalar != scaled_by as f32 {
        return Err(config.error(
            "query_pre_attn_scalar",
            format_args!("is {scalar}; of GGUF's readers a model of {n_layers} layers gets {scaled_by}"),
        ));
    }

    let sliding = config
        .object("rope_parameters")?
        .map(|kinds| kinds.object("sliding_attention"))
        .transpose()?
        .flatten();
    let local_base = match sliding {
        Some(sliding) => sliding.f32("rope_theta")?,
        None => config.f32("rope_local_base_freq")?,
    };
    metadata.set("gemma3.rope.freq_base_swa", local_base.unwrap_or(10000.0));

    let period = match config.array("layer_types")? {
        Some(kinds) => period(config, kinds)?,
        None => {
            config.u32("sliding_window_pattern")?.or(config.u32("_sliding_window_pattern")?).unwrap_or(PERIOD)
        }
    };
    if period != PERIOD {
        metadata.set("gemma3.attention.sliding_window_pattern", period);
    }
    Ok(())
}

/// The period of full attention in the list of layers; 0 where no layer has it.
fn period(config: &Object, kinds: &[Value]) -> Result<u32> {
    let is_full = |kind: &Value| kind.as_str() == Some("full_attention");
    let first = kinds.iter().position(is_full);
    // A list shorter than a period fits the usual one.
    let period =
        first.map_or(if kinds.len() < PERIOD as usize { PERIOD as usize } else { 0 }, |first| first + 1);
    let fits = |(i, kind): (usize, &Value)| match kind.as_str() {
        Some("full_attention") => period > 0 && (i + 1) % period == 0,
        Some("sliding_attention") => period == 0 || (i + 1) % period != 0,
        _ => false,
    };
    if kinds.iter().enumerate().all(fits) {
        return Ok(period as u32);
    }
    Err(config.error(
        "layer_types",
        "is no repetition of sliding_attention layers followed by one of full_attention",
    ))
}
