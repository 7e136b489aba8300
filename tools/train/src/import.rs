//! From a GGUF file to weights that training goes on from: the other way round than [`crate::export`].

use std::path::Path;

use cchaha::gguf::{Error, Gguf, Metadata, TensorInfo, Value};
use cchaha::kernels::formats::dequantize;
use cchaha_cli::exit::{Failure, Result};

use crate::model::{Config, Layout};

/// Keys that [`crate::export::export`] sets anew, so that vocabularies may differ in them.
const OWN: [&str; 2] = ["tokenizer.ggml.bos_token_id", "tokenizer.ggml.add_bos_token"];

/// Sizes and weights of a `cchaha` model in any format, as [`Layout`] orders them. What quantization took is lost, and no
/// optimizer state comes with it.
///
/// # Errors
/// Where the file is damaged or of another architecture, or its vocabulary is not that of `vocabulary`.
pub fn import(path: &Path, vocabulary: &Path) -> Result<(Config, Vec<f32>)> {
    let model = Gguf::open(path).map_err(cchaha::Error::from)?;
    let given = Gguf::open(vocabulary).map_err(cchaha::Error::from)?;
    let damaged = |what: String| Failure::model(format!("{}: {what}", path.display()));
    let architecture = model.metadata().require_str("general.architecture").map_err(cchaha::Error::from)?;
    if architecture != "cchaha" {
        return Err(damaged(format!("its architecture is {architecture}; only cchaha models are trained")));
    }
    if !vocabulary_of(model.metadata()).eq(vocabulary_of(given.metadata())) {
        return Err(Failure::usage(format!(
            "{} was trained with another vocabulary than {}; a model's own file serves as --tokenizer",
            path.display(),
            vocabulary.display()
        )));
    }
    let config = config(model.metadata()).map_err(cchaha::Error::from)?;
    config.check()?;
    let layout = Layout::new(&config);
    // All are there before anything as large as the file says is allocated.
    let stored = layout.tensors.iter().map(|tensor| {
        let stored = model
            .tensor(&tensor.name)
            .ok_or_else(|| damaged(format!("the tensor {} is missing", tensor.name)))?;
        if [stored.dims.cols(), stored.dims.rows()] != [tensor.cols, tensor.rows] {
            return Err(damaged(format!(
                "the tensor {} is {}, expected {} x {}",
                tensor.name, stored.dims, tensor.cols, tensor.rows
            )));
        }
        Ok(stored)
    });
    let stored: Vec<&TensorInfo> = stored.collect::<Result<_>>()?;
    let mut weights = vec![0.0; layout.len()];
    for (tensor, stored) in layout.tensors.iter().zip(stored) {
        dequantize(stored.format, stored.data.as_slice(), &mut weights[tensor.range.clone()]);
    }
    Ok((config, weights))
}

fn vocabulary_of(metadata: &Metadata) -> impl Iterator<Item = (&str, &Value)> {
    let is_text = |key: &str| key.starts_with("tokenizer.") || key.starts_with("cchaha.tokenizer.");
    metadata.iter().filter(move |(key, _)| is_text(key) && !OWN.contains(key))
}

/// What [`crate::export`] wrote.
fn config(metadata: &Metadata) -> std::result::Result<Config, Error> {
    let key = |name: &str| format!("cchaha.{name}");
    let count = |name: &str| metadata.require_u32(&key(name)).map(|n| n as usize);
    let layers = count("block_count")?;
    let head_dim = count("attention.key_length")?;
    let split = metadata.u32(&key("rope.scope_split"))?.map_or(head_dim / 2, |split| split as usize);
    let windowed = metadata.bools(&key("attention.sliding_window_pattern"))?.unwrap_or_default();
    Ok(Config {
        vocab: count("vocab_size")?,
        width: count("embedding_length")?,
        layers,
        heads: count("attention.head_count")?,
        kv_heads: count("attention.head_count_kv")?,
        head_dim,
        hidden: count("feed_forward_length")?,
        context: count("context_length")?,
        window: count("attention.sliding_window")?,
        // The first layer that sees everything says how often one does.
        pattern: windowed.iter().position(|&windowed| !windowed).map_or(0, |layer| layer + 1),
        rope_base: f64::from(metadata.require_f32(&key("rope.freq_base"))?),
        scope_split: split,
        sigma: f64::from(metadata.f32(&key("rope.sigma"))?.unwrap_or(1.0)),
        pins: metadata.bool(&key("attention.pins"))?.unwrap_or(false),
    })
}
