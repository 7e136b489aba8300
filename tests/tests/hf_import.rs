//! Checkpoints that transformers saved, converted by `quantize` and run by the engine, give the logits that
//! transformers computes.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use cchaha::text::Special;
use cchaha::{Device, Model, Session, SessionOptions};
use cchaha_tests::program;
use serde_json::Value;
use tempfile::TempDir;

const FIXTURES: [&str; 9] =
    ["gemma3", "granite", "llama", "llama3", "mistral", "qwen2", "qwen3", "qwen3moe", "starcoder2"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hf").join(name)
}

fn quantize(from: &Path, to: &Path, kind: &str) -> Output {
    let mut command = Command::new(program("quantize"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CCHAHA_ARG_") {
            command.env_remove(name);
        }
    }
    command.arg(from).arg(to).args(["--type", kind]).stdin(Stdio::null()).output().expect("it runs")
}

fn u32s(value: &Value) -> Vec<u32> {
    value.as_array().expect("a list").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

#[test]
fn converted_checkpoints_compute_what_transformers_does() {
    let folder = TempDir::new().expect("a folder");
    for name in FIXTURES {
        let path = folder.path().join(format!("{name}.gguf"));
        let output = quantize(&fixture(name), &path, "F32");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let model = Arc::new(Model::open(&path).unwrap_or_else(|error| panic!("{error}")));

        let expected = std::fs::read(fixture(name).join("expected.json")).expect("a fixture");
        let expected: Value = serde_json::from_slice(&expected).expect("valid JSON");
        let ids = model.tokenizer().encode(expected["text"].as_str().expect("a text"), Special::Parse);
        assert_eq!(ids, u32s(&expected["ids"]), "{name}");

        let options = SessionOptions {
            device: Device::Cpu,
            threads: Some(1),
            exact: true,
            ..SessionOptions::default()
        };
        let mut session = Session::new(&model, &options).expect("a session");
        let tokens = u32s(&expected["tokens"]);
        let rows = expected["logits"].as_array().expect("rows");
        for (position, row) in u32s(&expected["positions"]).into_iter().zip(rows) {
            let tokens = &tokens[..=position as usize];
            session.set_prompt(tokens, &mut |_| ControlFlow::Continue(())).expect("the prompt fits");
            let row = row.as_array().expect("a row");
            assert_eq!(session.logits().len(), row.len(), "{name}");
            for (&found, expected) in session.logits().iter().zip(row) {
                let off = (f64::from(found) - expected.as_f64().expect("a number")).abs();
                assert!(off <= 1e-4, "{name}: a logit at position {position} is off by {off:e}");
            }
        }
    }
}

/// A shard that was cut is named, and no file is left.
#[test]
fn damage_is_told_and_leaves_nothing_behind() {
    let folder = TempDir::new().expect("a folder");
    let source = folder.path().join("checkpoint");
    std::fs::create_dir(&source).expect("a folder");
    for entry in std::fs::read_dir(fixture("qwen3moe")).expect("a fixture").flatten() {
        std::fs::copy(entry.path(), source.join(entry.file_name())).expect("a copy");
    }
    let shard = source.join("model-00003-of-00004.safetensors");
    let bytes = std::fs::read(&shard).expect("a shard");
    std::fs::write(&shard, &bytes[..bytes.len() - 1]).expect("a shorter one");
    let target = folder.path().join("out.gguf");
    let output = quantize(&source, &target, "Q8_0");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("model-00003-of-00004.safetensors") && text.contains("get it again"), "{text}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}
