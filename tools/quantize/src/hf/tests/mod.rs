//! What becomes of fixtures that transformers saved (tests/tests/hf_import.rs has what the models compute), of published
//! tokenizers, and of files that are damaged in many ways.

use std::path::{Path, PathBuf};

use cchaha::gguf::{Gguf, TensorSpec, write_to};
use cchaha::plan::Bytes;
use serde_json::Value;

use super::*;

mod hostile;
mod published;

/// Folders of tests/hf, which its make.py writes.
const FIXTURES: [&str; 9] =
    ["gemma3", "granite", "llama", "llama3", "mistral", "qwen2", "qwen3", "qwen3moe", "starcoder2"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/hf").join(name)
}

/// The whole model as an F32 file in memory.
fn to_gguf(source: &HfSource) -> Gguf {
    let specs: Vec<TensorSpec> = source
        .tensors()
        .iter()
        .map(|t| TensorSpec { name: t.name.clone(), format: Format::F32, dims: t.dims })
        .collect();
    let mut bytes = Vec::new();
    write_to("converted.gguf", &mut bytes, source.metadata(), &specs, |i, out| {
        let dims = source.tensors()[i].dims;
        let mut values = vec![0.0; dims.n_values()];
        source.read_rows(i, 0..dims.rows(), &mut values).expect("rows");
        values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
    })
    .expect("a valid file");
    Gguf::from_bytes("converted.gguf", Bytes::from(bytes)).expect("a valid file")
}

#[test]
fn stories_are_those_of_the_gguf_file() {
    let source =
        HfSource::open(&fixture("stories260K")).unwrap_or_else(|error| panic!("{}", error.message()));
    let converted = to_gguf(&source);
    let golden = fixture("../golden/stories260K-f32.gguf");
    let golden = Gguf::open(&golden).expect("a golden file");
    for (key, value) in golden.metadata().iter().filter(|(key, _)| *key != "general.file_type") {
        assert_eq!(converted.metadata().get(key), Some(value), "{key}");
    }
    assert_eq!(converted.tensors().len(), golden.tensors().len());
    for tensor in golden.tensors() {
        let found = converted.tensor(&tensor.name).expect("a tensor of this name");
        assert_eq!((found.dims, found.format), (tensor.dims, tensor.format), "{}", tensor.name);
        assert!(found.data.as_slice() == tensor.data.as_slice(), "{} differs", tensor.name);
    }
}

/// Rows as they are stored and rows as numbers are the same, whatever piece of a tensor is asked for.
#[test]
fn pieces_of_tensors_are_those_of_the_whole() {
    for name in FIXTURES {
        let source = HfSource::open(&fixture(name)).unwrap_or_else(|error| panic!("{}", error.message()));
        for (i, tensor) in source.tensors().iter().enumerate() {
            let (rows, cols) = (tensor.dims.rows(), tensor.dims.cols());
            let mut whole = vec![0.0; rows * cols];
            source.read_rows(i, 0..rows, &mut whole).expect("rows");
            for range in [0..1, rows / 3..rows, rows - 1..rows] {
                let expected = &whole[range.start * cols..range.end * cols];
                let mut found = vec![0.0; expected.len()];
                source.read_rows(i, range.clone(), &mut found).expect("rows");
                assert_eq!(found, expected, "{name} {}", tensor.name);
                if let Some(bytes) = source.stored_rows(i, range) {
                    cchaha::kernels::formats::dequantize(tensor.format, &bytes, &mut found);
                    assert_eq!(found, expected, "{name} {}", tensor.name);
                }
            }
        }
    }
}

#[test]
fn everything_a_checkpoint_says_is_carried_over() {
    let metadata = |name: &str| {
        let source = HfSource::open(&fixture(name)).unwrap_or_else(|error| panic!("{}", error.message()));
        source.metadata().clone()
    };
    let qwen = metadata("qwen2");
    for (key, value) in [
        ("qwen2.rope.scaling.factor", 4.0),
        ("general.sampling.temp", 0.7),
        ("general.sampling.top_p", 0.8),
        ("general.sampling.penalty_repeat", 1.05),
    ] {
        assert_eq!(qwen.f32(key).expect("a float"), Some(value as f32), "{key}");
    }
    for (key, value) in [
        ("tokenizer.ggml.bos_token_id", 280),
        ("tokenizer.ggml.eos_token_id", 282),
        ("tokenizer.ggml.padding_token_id", 280),
        ("general.sampling.top_k", 20),
        ("qwen2.rope.scaling.original_context_length", 32),
        ("qwen2.vocab_size", 287),
    ] {
        assert_eq!(qwen.u32(key).expect("a count"), Some(value), "{key}");
    }
    assert_eq!(qwen.str("tokenizer.ggml.pre").expect("a text"), Some("qwen2"));
    let template = qwen.str("tokenizer.chat_template").expect("a text").expect("a template");
    assert!(template.starts_with("{% for m in messages %}"), "{template}");
    let types = qwen.require_i32s("tokenizer.ggml.token_type").expect("types");
    // <|endoftext|>, <|im_start|>, <|im_end|>, <tool_call>, and three rows without a token.
    assert_eq!(types[279..], [1, 3, 3, 3, 4, 5, 5, 5]);

    let llama3 = metadata("llama3");
    assert_eq!(llama3.str("tokenizer.ggml.pre").expect("a text"), Some("llama-bpe"));
    assert_eq!(llama3.bool("tokenizer.ggml.add_bos_token").expect("a bool"), Some(true));
    assert_eq!(metadata("starcoder2").u32("starcoder2.attention.sliding_window").expect("a count"), Some(12));
    assert_eq!(metadata("gemma3").f32("gemma3.rope.freq_base_swa").expect("a float"), Some(10000.0));
}

/// What GGUF or its readers cannot express is refused, and the message says which part of which file it is.
#[test]
fn what_gguf_cannot_say_is_refused() {
    use serde_json::json;
    let cases = [
        ("qwen2", "config.json", "/architectures", json!(["FutureForCausalLM"]), "FutureForCausalLM"),
        ("qwen2", "config.json", "/use_sliding_window", json!(true), "use_sliding_window"),
        ("qwen2", "config.json", "/layer_types/1", json!("sliding_attention"), "layer_types"),
        ("qwen2", "config.json", "/hidden_act", json!("relu"), "hidden_act"),
        ("qwen2", "config.json", "/hidden_size", json!(64), "expected [any, 64]"),
        ("qwen2", "config.json", "/num_hidden_layers", json!(3), "model.layers.2."),
        ("qwen2", "config.json", "/num_hidden_layers", json!(1), "model.layers.1."),
        ("qwen2", "config.json", "/rope_scaling/rope_type", json!("longrope"), "longrope"),
        ("qwen2", "config.json", "/rope_scaling/rope_type", json!("llama3"), "rope_scaling"),
        (
            "qwen2",
            "tokenizer.json",
            "/pre_tokenizer/pretokenizers/0/pattern/Regex",
            json!("a+"),
            "pre_tokenizer",
        ),
        (
            "qwen2",
            "tokenizer.json",
            "/pre_tokenizer/pretokenizers/0/behavior",
            json!("Removed"),
            "pre_tokenizer",
        ),
        ("qwen2", "tokenizer.json", "/normalizer/type", json!("Lowercase"), "normalizer"),
        ("qwen2", "tokenizer.json", "/model/type", json!("Unigram"), "Unigram"),
        ("qwen2", "tokenizer.json", "/model/ignore_merges", json!(true), "ignore_merges"),
        ("qwen2", "tokenizer.json", "/model/merges/0", json!("a"), "merge 0"),
        ("qwen2", "tokenizer.json", "/model/vocab/a", json!(0), "same id"),
        ("qwen2", "tokenizer.json", "/model/vocab/a", json!(100_000), "100000"),
        ("llama", "tokenizer.json", "/normalizer", json!({"type": "Nmt"}), "normalizer"),
        ("llama", "tokenizer.json", "/pre_tokenizer", json!({"type": "Whitespace"}), "pre_tokenizer"),
        ("qwen3moe", "config.json", "/norm_topk_prob", json!(false), "norm_topk_prob"),
        ("qwen3moe", "config.json", "/mlp_only_layers", json!([1]), "mlp_only_layers"),
        ("qwen3moe", "config.json", "/num_experts", json!(6), "mlp.gate.weight"),
        (
            "qwen3moe",
            "model.safetensors.index.json",
            "/weight_map/model.norm.weight",
            json!("../x"),
            "same folder",
        ),
        ("gemma3", "config.json", "/query_pre_attn_scalar", json!(32), "query_pre_attn_scalar"),
        ("gemma3", "config.json", "/layer_types/1", json!("full_attention"), "layer_types"),
        ("starcoder2", "config.json", "/use_bias", json!(false), "use_bias"),
        (
            "granite",
            "config.json",
            "/quantization_config",
            json!({"quant_method": "awq"}),
            "quantized already",
        ),
        ("llama", "config.json", "/head_dim", json!(4_000_000_000_u32), "head_dim"),
        ("llama3", "config.json", "/rope_scaling/factor", json!("much"), "rope_scaling.factor"),
    ];
    for (name, file, pointer, value, word) in cases {
        let folder = tempfile::TempDir::new().expect("a folder");
        for entry in std::fs::read_dir(fixture(name)).expect("a fixture").flatten() {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("a copy");
        }
        let path = folder.path().join(file);
        let mut json: Value =
            serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("valid JSON");
        // Keys of the outermost object may be new, or hold dots.
        match json.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => json[&pointer[1..]] = value,
        }
        std::fs::write(&path, json.to_string()).expect("a changed file");
        let Err(error) = HfSource::open(folder.path()) else { panic!("{name} {pointer} should be refused") };
        assert!(
            error.message().contains(word),
            "{name} {pointer}: {:?} does not say {word:?}",
            error.message()
        );
        assert!(error.message().contains(&*folder.path().to_string_lossy()), "{}", error.message());
    }
}
