//! `quantize` as its users meet it, and the encoders behind it.

#[path = "quantize/commands.rs"]
mod commands;
#[path = "quantize/encoders.rs"]
mod encoders;
#[cfg(target_os = "linux")]
#[path = "quantize/faults.rs"]
mod faults;
#[path = "quantize/limits.rs"]
mod limits;
#[path = "quantize/mixes.rs"]
mod mixes;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use cchaha_gguf::{Dims, Metadata, TensorSpec, Value};
use cchaha_plan::Format;

/// The program with an environment that sets none of its variables.
fn quantize(args: &[&str]) -> Command {
    let mut command = Command::new(cchaha_tests::program("quantize"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CCHAHA_ARG_") {
            command.env_remove(name);
        }
    }
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    quantize(args).output().expect("quantize runs")
}

/// What a successful run prints.
fn stdout(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Asserts the exit code and one clear sentence that holds all `words`.
fn fails(args: &[&str], code: i32, words: &[&str]) {
    let output = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert!(stderr.contains("error: "), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in: {stderr}");
    }
    for debug in ["Error {", "Err(", "Some(", "panicked"] {
        assert!(!stderr.contains(debug), "Rust's debug form in: {stderr}");
    }
}

/// What ggml and llama.cpp do; `tests/quantize/make.py` wrote it.
fn golden() -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("quantize/ggml.json");
    let text = std::fs::read_to_string(path).expect("a committed file");
    serde_json::from_str(&text).expect("JSON")
}

fn stories() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/stories260K-f32.gguf");
    path.to_str().expect("a UTF-8 path").to_owned()
}

/// Numbers from -1 to 1 with a bell-shaped distribution, always the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        let mut uniform = || {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 40) as f32 / (1 << 24) as f32
        };
        (uniform() + uniform() + uniform() + uniform() - 2.0) / 2.0
    }
}

/// A model of llama's shape: 16 layers, 8 query heads for 2 KV heads, rows of 256, 512 and 96 values. Nothing could be
/// generated with it, but tensors are what they are in large models.
fn synthetic(path: &Path) {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", Value::Str("llama".into()));
    for (key, value) in [
        ("block_count", 16),
        ("context_length", 128),
        ("embedding_length", 256),
        ("feed_forward_length", 512),
        ("attention.head_count", 8),
        ("attention.head_count_kv", 2),
        ("rope.dimension_count", 32),
    ] {
        metadata.set(format!("llama.{key}"), Value::U32(value));
    }
    metadata.set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    let mut specs = Vec::new();
    let mut add = |name: String, dims: &[usize]| {
        let dims = Dims::new(dims).expect("dims");
        let format = if dims.len() == 1 { Format::F32 } else { Format::F16 };
        specs.push(TensorSpec { name, format, dims });
    };
    add("token_embd.weight".into(), &[256, 320]);
    add("output.weight".into(), &[256, 320]);
    add("output_norm.weight".into(), &[256]);
    for layer in 0..16 {
        for (name, dims) in [
            ("attn_norm", &[256][..]),
            ("attn_q", &[256, 256]),
            ("attn_k", &[256, 64]),
            ("attn_v", &[256, 64]),
            ("attn_output", &[256, 256]),
            ("ffn_norm", &[256]),
            ("ffn_gate", &[256, 512]),
            ("ffn_up", &[96, 512]),
            ("ffn_down", &[512, 256]),
        ] {
            add(format!("blk.{layer}.{name}.weight"), dims);
        }
    }
    let mut random = Random(1);
    let dims: Vec<(Dims, Format)> = specs.iter().map(|spec| (spec.dims, spec.format)).collect();
    cchaha_gguf::write(path, &metadata, &specs, |i, out| {
        let (dims, format) = dims[i];
        let values: Vec<f32> = (0..dims.n_values()).map(|_| 0.05 * random.next()).collect();
        let mut bytes = vec![0; dims.n_bytes(format).expect("whole blocks")];
        let encoder = cchaha_kernels::encode::Encoder::of(format, cchaha_kernels::Isa::Generic);
        encoder.encode(&values, None, &mut bytes).expect("small numbers");
        out.write_all(&bytes)
    })
    .expect("a file");
}
