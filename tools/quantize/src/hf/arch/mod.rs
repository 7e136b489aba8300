//! Architectures: how the keys and tensors of each are called in a checkpoint and in GGUF. One file each, and one row
//! in [`ARCHS`].

mod gemma3;
mod granite;
mod llama;
mod qwen;
mod starcoder2;

use cchaha::gguf::Metadata;
use serde_json::Value;

use super::json::{Object, excerpt};
use crate::exit::Result;

/// One architecture.
pub(super) struct Arch {
    /// Its names in the `architectures` of config.json.
    classes: &'static [&'static str],
    /// Its name in `general.architecture`.
    pub(super) gguf: &'static str,
    /// Keys beside those in [`KEYS`].
    keys: &'static [Key],
    /// What must be so, because GGUF has no way to say that it is not.
    only: &'static [Only],
    /// The base of rotary frequencies where the file is silent.
    pub(super) rope_base: f32,
    /// Whether GGUF can give a divisor per rotary pair.
    pub(super) rope_factors: bool,
    /// Tensors beside those in [`WEIGHTS`].
    weights: &'static [Weight],
    /// What no row can say.
    more: fn(&Object, &mut Metadata) -> Result,
}

const ARCHS: &[Arch] = &[
    llama::LLAMA,
    llama::MISTRAL,
    qwen::QWEN2,
    qwen::QWEN3,
    qwen::QWEN3MOE,
    gemma3::GEMMA3,
    starcoder2::STARCODER2,
    granite::GRANITE,
];

/// A number: its name in config.json, and in GGUF after the architecture's.
pub(super) struct Key {
    hf: &'static str,
    gguf: &'static str,
    kind: Kind,
    /// Taken where the file is silent.
    default: Default,
}

enum Kind {
    Count,
    Float,
}

enum Default {
    /// The file must say.
    None,
    /// GGUF's reader knows.
    Silent,
    Value(f32),
}

const fn count(hf: &'static str, gguf: &'static str) -> Key {
    Key { hf, gguf, kind: Kind::Count, default: Default::None }
}

const fn float(hf: &'static str, gguf: &'static str) -> Key {
    Key { hf, gguf, kind: Kind::Float, default: Default::None }
}

impl Key {
    const fn or(self, value: f32) -> Key {
        Key { default: Default::Value(value), ..self }
    }

    const fn optional(self) -> Key {
        Key { default: Default::Silent, ..self }
    }
}

/// A key of config.json and the JSON of the values it may have, if it is there.
type Only = (&'static str, &'static [&'static str]);

const SILU: Only = ("hidden_act", &["\"silu\"", "\"swish\""]);
const GELU_TANH: &[&str] = &["\"gelu_pytorch_tanh\""];
const NO: &[&str] = &["false"];

/// Values of a head; no model comes near it.
const MAX_HEAD_DIM: u32 = 1 << 16;

/// Keys of every architecture. Those of attention heads and of rotary positions need more than a row.
const KEYS: &[Key] = &[
    count("num_hidden_layers", "block_count"),
    count("hidden_size", "embedding_length"),
    count("intermediate_size", "feed_forward_length"),
];

const CONTEXT: Key = count("max_position_embeddings", "context_length");
const RMS_EPSILON: Key = float("rms_norm_eps", "attention.layer_norm_rms_epsilon");

/// A tensor in both worlds. `{}` stands for the layer, `{e}` for the expert.
pub(super) struct Weight {
    pub(super) gguf: &'static str,
    pub(super) hf: &'static str,
    /// In the checkpoint: rows, columns.
    pub(super) shape: &'static [Size],
    pub(super) change: Change,
    pub(super) optional: bool,
}

/// Sizes by what they count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// Whatever the tensor has.
    Vocab,
    Embd,
    /// All query heads.
    Q,
    /// All key (or value) heads.
    Kv,
    /// One head.
    Head,
    Ff,
    Experts,
    ExpertFf,
}

/// How the values of a tensor differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Not at all.
    None,
    /// The two rows of a rotary pair lie half a head apart in the checkpoint, and side by side in GGUF.
    PairRows,
    /// The checkpoint leaves out the 1 that a norm's weights are around.
    PlusOne,
    /// One tensor per expert becomes one tensor of them all.
    Experts,
}

const fn weight(gguf: &'static str, hf: &'static str, shape: &'static [Size]) -> Weight {
    Weight { gguf, hf, shape, change: Change::None, optional: false }
}

impl Weight {
    const fn optional(self) -> Weight {
        Weight { optional: true, ..self }
    }

    const fn with(self, change: Change) -> Weight {
        Weight { change, ..self }
    }
}

/// Tensors of every architecture, in the order they are written.
const WEIGHTS: &[Weight] = &[
    weight("token_embd.weight", "model.embed_tokens.weight", &[Size::Vocab, Size::Embd]),
    weight("output.weight", "lm_head.weight", &[Size::Vocab, Size::Embd]).optional(),
    weight("blk.{}.attn_v.weight", "model.layers.{}.self_attn.v_proj.weight", &[Size::Kv, Size::Embd]),
    weight("blk.{}.attn_output.weight", "model.layers.{}.self_attn.o_proj.weight", &[Size::Embd, Size::Q]),
];

const GATE: Weight =
    weight("blk.{}.ffn_gate.weight", "model.layers.{}.mlp.gate_proj.weight", &[Size::Ff, Size::Embd]);
const UP: Weight =
    weight("blk.{}.ffn_up.weight", "model.layers.{}.mlp.up_proj.weight", &[Size::Ff, Size::Embd]);
const DOWN: Weight =
    weight("blk.{}.ffn_down.weight", "model.layers.{}.mlp.down_proj.weight", &[Size::Embd, Size::Ff]);
const Q: Weight =
    weight("blk.{}.attn_q.weight", "model.layers.{}.self_attn.q_proj.weight", &[Size::Q, Size::Embd]);
const K: Weight =
    weight("blk.{}.attn_k.weight", "model.layers.{}.self_attn.k_proj.weight", &[Size::Kv, Size::Embd]);
const Q_BIAS: Weight = weight("blk.{}.attn_q.bias", "model.layers.{}.self_attn.q_proj.bias", &[Size::Q]);
const K_BIAS: Weight = weight("blk.{}.attn_k.bias", "model.layers.{}.self_attn.k_proj.bias", &[Size::Kv]);
const V_BIAS: Weight = weight("blk.{}.attn_v.bias", "model.layers.{}.self_attn.v_proj.bias", &[Size::Kv]);
const O_BIAS: Weight =
    weight("blk.{}.attn_output.bias", "model.layers.{}.self_attn.o_proj.bias", &[Size::Embd]);
const Q_NORM: Weight =
    weight("blk.{}.attn_q_norm.weight", "model.layers.{}.self_attn.q_norm.weight", &[Size::Head]);
const K_NORM: Weight =
    weight("blk.{}.attn_k_norm.weight", "model.layers.{}.self_attn.k_norm.weight", &[Size::Head]);
const OUTPUT_NORM: Weight = weight("output_norm.weight", "model.norm.weight", &[Size::Embd]);
const ATTN_NORM: Weight =
    weight("blk.{}.attn_norm.weight", "model.layers.{}.input_layernorm.weight", &[Size::Embd]);
const FFN_NORM: Weight =
    weight("blk.{}.ffn_norm.weight", "model.layers.{}.post_attention_layernorm.weight", &[Size::Embd]);

/// The sizes a configuration gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) n_layers: u32,
    pub(super) n_embd: u32,
    pub(super) n_heads: u32,
    pub(super) n_kv_heads: u32,
    pub(super) head_dim: u32,
    n_ff: u32,
    /// 0 where there are none.
    pub(super) n_experts: u32,
    n_expert_ff: u32,
}

impl Sizes {
    /// The size in this model; `None` where the tensor may have any.
    pub(super) fn get(&self, size: Size) -> Option<u64> {
        let [embd, ff, experts, expert_ff] =
            [self.n_embd, self.n_ff, self.n_experts, self.n_expert_ff].map(u64::from);
        let [heads, kv_heads, head_dim] = [self.n_heads, self.n_kv_heads, self.head_dim].map(u64::from);
        match size {
            Size::Vocab => None,
            Size::Embd => Some(embd),
            Size::Q => Some(heads * head_dim),
            Size::Kv => Some(kv_heads * head_dim),
            Size::Head => Some(head_dim),
            Size::Ff => Some(ff),
            Size::Experts => Some(experts),
            Size::ExpertFf => Some(expert_ff),
        }
    }
}

impl Arch {
    /// The architecture that config.json names.
    pub(super) fn find(config: &Object) -> Result<&'static Arch> {
        let names = config.array("architectures")?.ok_or_else(|| config.missing("architectures"))?;
        let known =
            |name: &Value| ARCHS.iter().find(|arch| name.as_str().is_some_and(|n| arch.classes.contains(&n)));
        names.iter().find_map(known).ok_or_else(|| {
            let all: Vec<&str> = ARCHS.iter().flat_map(|arch| arch.classes).copied().collect();
            let names = excerpt(&Value::Array(names.clone()));
            config.error("architectures", format_args!("is {names}; supported are {}", all.join(", ")))
        })
    }

    /// All of its tensors, in the order they are written.
    pub(super) fn weights(&self) -> impl Iterator<Item = &'static Weight> {
        WEIGHTS.iter().chain(self.weights)
    }

    /// Writes the keys that rows describe, and those of the heads.
    pub(super) fn convert(&self, config: &Object, metadata: &mut Metadata) -> Result<Sizes> {
        for (key, allowed) in self.only {
            if let Some(value) =
                config.get(key).filter(|value| !allowed.contains(&value.to_string().as_str()))
            {
                let problem = format!(
                    "is {}, supported is {} in this architecture",
                    excerpt(value),
                    allowed.join(" or ")
                );
                return Err(config.error(key, problem));
            }
        }
        let quantization = "quantization_config";
        if config.get(quantization).is_some() {
            return Err(config
                .error(quantization, "is given: the weights are quantized already; get the model in BF16"));
        }
        metadata.set("general.architecture", self.gguf.to_owned());
        metadata.set("general.type", "model".to_owned());
        for Key { hf, gguf, kind, default } in KEYS.iter().chain(self.keys) {
            let name = format!("{}.{gguf}", self.gguf);
            match (kind, default) {
                (Kind::Count, Default::Value(default)) => {
                    metadata.set(name, config.u32(hf)?.unwrap_or(*default as u32));
                }
                (Kind::Float, Default::Value(default)) => {
                    metadata.set(name, config.f32(hf)?.unwrap_or(*default));
                }
                (Kind::Count, _) => {
                    config.u32(hf)?.map(|value| metadata.set(name, value));
                }
                (Kind::Float, _) => {
                    config.f32(hf)?.map(|value| metadata.set(name, value));
                }
            }
            if matches!(default, Default::None) && config.get(hf).is_none() {
                return Err(config.missing(hf));
            }
        }
        let sizes = self.sizes(config, metadata)?;
        (self.more)(config, metadata)?;
        Ok(sizes)
    }

    fn sizes(&self, config: &Object, metadata: &mut Metadata) -> Result<Sizes> {
        let key = |name: &str| format!("{}.attention.{name}", self.gguf);
        // Where an architecture's row gave a default, the file may be silent.
        let written = |metadata: &Metadata, name: &str| metadata.u32(&key(name)).map_err(cchaha::Error::from);
        let required = |name| config.u32(name)?.filter(|&n| n > 0).ok_or_else(|| config.missing(name));
        let n_heads = match written(metadata, "head_count")? {
            Some(n_heads) => n_heads,
            None => required("num_attention_heads")?,
        };
        let n_kv_heads = match written(metadata, "head_count_kv")? {
            Some(n_kv_heads) => n_kv_heads,
            None => config.u32("num_key_value_heads")?.unwrap_or(n_heads),
        };
        let hidden = required("hidden_size")?;
        let head_dim = match written(metadata, "key_length")?.or(config.u32("head_dim")?) {
            Some(head_dim) => head_dim,
            None => hidden / n_heads.max(1),
        };
        if head_dim == 0 || head_dim % 2 == 1 || head_dim > MAX_HEAD_DIM {
            let problem = format!("is {head_dim}, expected an even number from 2 to {MAX_HEAD_DIM}");
            return Err(config.error("head_dim", problem));
        }
        metadata.set(key("head_count"), n_heads);
        metadata.set(key("head_count_kv"), n_kv_heads);
        metadata.set(key("key_length"), head_dim);
        metadata.set(key("value_length"), head_dim);
        metadata.set(format!("{}.rope.dimension_count", self.gguf), head_dim);
        let expert = |name: &str| {
            let size = metadata.u32(&format!("{}.expert_{name}", self.gguf)).map_err(cchaha::Error::from)?;
            Ok::<_, crate::exit::Failure>(size.unwrap_or(0))
        };
        Ok(Sizes {
            n_layers: required("num_hidden_layers")?,
            n_embd: hidden,
            n_heads,
            n_kv_heads,
            head_dim,
            n_ff: required("intermediate_size")?,
            n_experts: expert("count")?,
            n_expert_ff: expert("feed_forward_length")?,
        })
    }
}

fn nothing(_: &Object, _: &mut Metadata) -> Result {
    Ok(())
}

/// `attention.sliding_window` of models in which every layer has it, where it is switched on.
fn window_of_every_layer(arch: &str, config: &Object, metadata: &mut Metadata) -> Result {
    if let Some(window) = config.u32("sliding_window")?.filter(|&window| window > 0) {
        metadata.set(format!("{arch}.attention.sliding_window"), window);
    }
    Ok(())
}

/// That no layer sees only a window.
fn full_attention(config: &Object) -> Result {
    let kinds = config.array("layer_types")?;
    match kinds.and_then(|kinds| kinds.iter().find(|kind| kind.as_str() != Some("full_attention"))) {
        Some(kind) => Err(config
            .error("layer_types", format_args!("has {}, supported is only full_attention", excerpt(kind)))),
        None => Ok(()),
    }
}
