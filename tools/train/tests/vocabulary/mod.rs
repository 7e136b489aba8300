//! A vocabulary for tests.

use std::path::Path;

use cchaha::gguf::{Array, Metadata, Value};

/// SentencePiece with nothing but bytes and its space: the simplest vocabulary the engine reads.
pub(crate) fn bytes(path: &Path) {
    let mut tokens: Vec<String> = vec!["<unk>".into(), "<s>".into(), "</s>".into(), "\u{2581}".into()];
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    // Unknown, two control tokens, one that is text, bytes.
    let types: Vec<i32> = [2, 3, 3, 1].into_iter().chain([6; 256]).collect();
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "cchaha").set("tokenizer.ggml.model", "llama");
    metadata.set("tokenizer.ggml.scores", vec![0f32; tokens.len()]);
    metadata.set("tokenizer.ggml.token_type", types);
    metadata.set("tokenizer.ggml.add_space_prefix", false);
    let strings = tokens.iter().map(|token| token.as_bytes()).collect();
    metadata.set("tokenizer.ggml.tokens", Value::Array(Array::Strings(strings)));
    cchaha::gguf::write(path, &metadata, &[], |_, _| Ok(())).unwrap();
}
