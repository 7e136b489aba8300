//! From a checkpoint to a GGUF file that the engine runs.

use std::path::Path;

use cchaha::gguf::{self, Dims, Gguf, Metadata, TensorSpec, Value};
use cchaha::kernels::Isa;
use cchaha::kernels::encode::Encoder;
use cchaha::plan::Format;
use cchaha::text::Tokenizer;
use cchaha_cli::exit::{Failure, Result};

use crate::model::{Config, EPS, Kind, Layout};
use crate::run::Checkpoint;

/// Writes a model: matrices in `format`, norms in F32. `vocabulary` is the file whose tokenizer keys are copied, `about`
/// more metadata.
///
/// # Errors
/// Where rows are no whole number of the format's blocks, a weight is no number, or a file cannot be read or written.
pub fn export(
    checkpoint: &Checkpoint,
    vocabulary: &Path,
    about: Vec<(&str, String)>,
    format: Format,
    out: &Path,
) -> Result {
    let config = &checkpoint.settings.config;
    let layout = Layout::new(config);
    let vocabulary = Gguf::open(vocabulary).map_err(cchaha::Error::from)?;
    let mut metadata = metadata(config);
    for (key, value) in about {
        metadata.set(key, value);
    }
    for (key, value) in vocabulary.metadata().iter() {
        if key.starts_with("tokenizer.") || key.starts_with("cchaha.tokenizer.") {
            metadata.set(key, value.clone());
        }
    }
    // In training every text begins with this token, so prompts do too.
    if let Some(beginning) = beginning(vocabulary.metadata())? {
        metadata.set("tokenizer.ggml.bos_token_id", beginning).set("tokenizer.ggml.add_bos_token", true);
    }
    let format_of = |kind| if kind == Kind::Norm { Format::F32 } else { format };
    let mut specs = Vec::new();
    for tensor in &layout.tensors {
        let format = format_of(tensor.kind);
        if format.row_bytes(tensor.cols).is_none() {
            return Err(Failure::usage(format!(
                "{} has rows of {} values, which are no whole number of {format} blocks of {}; export F32 and quantize that",
                tensor.name,
                tensor.cols,
                format.block_len()
            )));
        }
        let dims = if tensor.kind == Kind::Norm { vec![tensor.cols] } else { vec![tensor.cols, tensor.rows] };
        let dims = Dims::new(&dims).expect("invariant: sizes were checked with the configuration");
        specs.push(TensorSpec { name: tensor.name.clone(), format, dims });
    }
    gguf::write(out, &metadata, &specs, |i, out| {
        let tensor = &layout.tensors[i];
        let values = &checkpoint.weights[tensor.range.clone()];
        let bytes = specs[i].dims.n_bytes(specs[i].format).expect("invariant: rows are whole blocks");
        let mut encoded = vec![0; bytes];
        Encoder::of(specs[i].format, Isa::best())
            .encode(values, None, &mut encoded)
            .map_err(|error| std::io::Error::other(format!("{}: {error}", tensor.name)))?;
        out.write_all(&encoded)
    })
    .map_err(|error| Failure::from(cchaha::Error::from(error)))
}

fn beginning(vocabulary: &Metadata) -> Result<Option<u32>> {
    let tokenizer = Tokenizer::from_gguf(vocabulary).map_err(|error| Failure::model(error.to_string()))?;
    Ok(tokenizer.bos().or(tokenizer.eos()))
}

fn metadata(config: &Config) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "cchaha");
    let mut set = |key: &str, value: Value| {
        metadata.set(format!("cchaha.{key}"), value);
    };
    let count = |n: usize| Value::U32(n as u32);
    set("context_length", count(config.context));
    set("embedding_length", count(config.width));
    set("block_count", count(config.layers));
    set("feed_forward_length", count(config.hidden));
    set("vocab_size", count(config.vocab));
    set("attention.head_count", count(config.heads));
    set("attention.head_count_kv", count(config.kv_heads));
    set("attention.key_length", count(config.head_dim));
    set("attention.value_length", count(config.head_dim));
    set("attention.layer_norm_rms_epsilon", Value::F32(EPS as f32));
    set("attention.sliding_window", count(config.window));
    let windowed: Vec<bool> = (0..config.layers).map(|layer| config.windowed(layer)).collect();
    set("attention.sliding_window_pattern", windowed.into());
    set("attention.pins", Value::Bool(config.pins));
    set("rope.freq_base", Value::F32(config.rope_base as f32));
    set("rope.scope_split", count(config.scope_split));
    set("rope.sigma", Value::F32(config.sigma as f32));
    metadata
}
