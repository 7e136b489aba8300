//! Model files whose metadata or tensors ask for what the engine does not know, or contradict each other: each is
//! an error that names the key or tensor.

use std::path::Path;

use cchaha::{ErrorKind, Model};
use cchaha_gguf::{Dims, Gguf, Metadata, TensorInfo, TensorSpec, Value, write_to};
use cchaha_plan::Bytes;

/// A tiny model, changed, and written anew in memory.
fn changed(
    name: &str,
    change: impl FnOnce(&mut Metadata, &mut Vec<TensorInfo>),
) -> Result<Model, cchaha::Error> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.gguf"));
    let gguf = Gguf::open(&path).expect("a golden model");
    let (mut metadata, mut tensors) = (gguf.metadata().clone(), gguf.tensors().to_vec());
    change(&mut metadata, &mut tensors);
    let specs: Vec<TensorSpec> =
        tensors.iter().map(|t| TensorSpec { name: t.name.clone(), format: t.format, dims: t.dims }).collect();
    let mut bytes = Vec::new();
    write_to("changed.gguf", &mut bytes, &metadata, &specs, |i, out| {
        out.write_all(tensors[i].data.as_slice())
    })
    .expect("a valid file");
    Model::from_gguf(Gguf::from_bytes("changed.gguf", Bytes::from(bytes)).expect("a valid file"))
}

/// That the change is refused in a sentence with all of `words`.
fn refused(name: &str, words: &[&str], change: impl FnOnce(&mut Metadata, &mut Vec<TensorInfo>)) {
    let error = changed(name, change).map(|_| ()).expect_err(&format!("{name} {words:?} should be refused"));
    assert_eq!(error.kind(), ErrorKind::Model, "{error}");
    assert_eq!(error.kind().exit_code(), 3);
    for word in ["changed.gguf"].iter().chain(words) {
        assert!(error.to_string().contains(word), "{error:?} does not say {word:?}");
    }
}

#[test]
fn unchanged_models_load() {
    changed("llama", |_, _| {}).expect("the same model");
}

#[test]
fn keys_nobody_knows_are_named() {
    let cases: [(&str, &str, Value); 12] = [
        ("llama", "llama.expert_count", Value::from(8u32)),
        ("llama", "llama.attention.clamp_kqv", Value::from(8.0f32)),
        ("llama", "llama.attention.max_alibi_bias", Value::from(8.0f32)),
        ("llama", "llama.attention.causal", Value::from(false)),
        ("llama", "llama.logit_scale", Value::from(0.5f32)),
        ("llama", "llama.residual_scale", Value::from(0.5f32)),
        ("llama", "llama.embedding_scale", Value::from(12.0f32)),
        ("llama", "llama.final_logit_softcapping", Value::from(30.0f32)),
        ("llama", "llama.rope.scaling.yarn_ext_factor", Value::from(0.5f32)),
        ("qwen2", "qwen2.attention.sliding_window", Value::from(64u32)),
        ("qwen3", "qwen3.rope.dimension_sections", Value::from(3u32)),
        ("starcoder2", "starcoder2.something_new", Value::from("soon".to_owned())),
    ];
    for (name, key, value) in cases {
        refused(name, &[key, "does not know"], |metadata, _| {
            metadata.set(key, value);
        });
    }
}

#[test]
fn keys_that_ask_for_nothing_are_accepted() {
    changed("llama", |metadata, _| {
        metadata
            .set("llama.expert_count", 0u32)
            .set("llama.attention.causal", true)
            .set("llama.logit_scale", 1.0f32)
            .set("llama.rope.scaling.finetuned", false)
            .set("llama.rope.scaling.type", "none".to_owned())
            .set("other.expert_count", 8u32);
    })
    .expect("a model like before");
}

#[test]
fn rope_rules_nobody_knows_are_named() {
    refused("llama", &["llama.rope.scaling.type", "longrope", "none, linear, yarn"], |metadata, _| {
        metadata.set("llama.rope.scaling.type", "longrope".to_owned());
    });
    refused("llama", &["llama.rope.scaling.factor", "-2"], |metadata, _| {
        metadata.set("llama.rope.scaling.factor", -2.0f32);
    });
    refused("llama-rope-llama3", &["rope_freqs.weight", "value 0 is 0"], |_, tensors| {
        let factors = tensors.iter_mut().find(|t| t.name == "rope_freqs.weight").expect("factors");
        factors.data = Bytes::from(vec![0; factors.data.len()]);
    });
}

#[test]
fn architectures_nobody_knows_are_named_with_those_that_run() {
    let supported = "cchaha, gemma3, granite, llama, qwen2, qwen3, qwen3moe, starcoder2";
    refused("llama", &["\"mamba\"", supported], |metadata, _| {
        metadata.set("general.architecture", "mamba".to_owned());
    });
}

#[test]
fn missing_tensors_are_named() {
    for (name, tensor) in [
        ("llama", "blk.1.ffn_down.weight"),
        ("llama", "output_norm.weight"),
        ("llama", "token_embd.weight"),
        ("qwen2", "blk.0.attn_k.bias"),
        ("qwen3", "blk.0.attn_q_norm.weight"),
        ("qwen3moe", "blk.1.ffn_down_exps.weight"),
        ("gemma3", "blk.6.post_ffw_norm.weight"),
        ("starcoder2", "blk.0.ffn_norm.bias"),
    ] {
        refused(name, &[tensor, "is missing"], |_, tensors| tensors.retain(|t| t.name != tensor));
    }
}

#[test]
fn tensors_nobody_knows_are_named() {
    refused("llama", &["blk.0.ffn_gate_inp.weight", "knows"], |_, tensors| {
        let mut router = tensors.iter().find(|t| t.name == "blk.0.ffn_norm.weight").expect("a norm").clone();
        router.name = "blk.0.ffn_gate_inp.weight".to_owned();
        tensors.push(router);
    });
}

#[test]
fn tensors_of_another_shape_are_named_with_the_one_expected() {
    refused("llama", &["blk.0.attn_q.weight", "64 x 64", "64 x 48"], |metadata, _| {
        metadata
            .set("llama.attention.key_length", 12u32)
            .set("llama.attention.value_length", 12u32)
            .set("llama.rope.dimension_count", 12u32);
    });
    refused("llama", &["blk.0.attn_norm.weight", "32 x 2", "64"], |_, tensors| {
        let norm = tensors.iter_mut().find(|t| t.name == "blk.0.attn_norm.weight").expect("a norm");
        norm.dims = Dims::new(&[32, 2]).expect("two dimensions");
    });
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    for (key, value, word) in [
        ("llama.block_count", 0u32, "is 0"),
        ("llama.block_count", u32::MAX / 2, "block_count"),
        ("llama.block_count", 1, "blk.1."),
        ("llama.attention.head_count", 0, "is 0"),
        ("llama.attention.head_count_kv", 3, "3 KV heads"),
        ("llama.attention.value_length", 8, "supported is only the 16"),
        ("llama.attention.key_length", 1 << 30, "at most"),
        ("llama.rope.dimension_count", 7, "even"),
        ("llama.rope.dimension_count", 1 << 20, "even"),
        ("llama.embedding_length", 128, "token_embd.weight"),
        ("llama.feed_forward_length", 65, "ffn_"),
        ("llama.context_length", 0, "is 0"),
        ("llama.vocab_size", 5, "vocab_size"),
    ] {
        refused("llama", &[word], |metadata, _| {
            metadata.set(key, value);
            if key == "llama.attention.key_length" {
                metadata.set("llama.attention.value_length", value);
            }
        });
    }
    refused("gemma3", &["gemma3.attention.sliding_window_pattern", "2 entries"], |metadata, _| {
        let pattern = Value::Array(cchaha_gguf::Array::Bool(vec![true, false]));
        metadata.set("gemma3.attention.sliding_window_pattern", pattern);
    });
}
