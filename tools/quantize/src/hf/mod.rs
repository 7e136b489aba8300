//! Checkpoints in the Hugging Face layout: `config.json`, safetensors (one file, or several with an index), and the
//! tokenizer's files. Everything becomes what GGUF calls it; values are read as they are needed.
//!
//! ```text
//! config.json ---------------- arch/, rope --+
//! tokenizer.json or .model,                  |
//! tokenizer_config.json, ... -- tokenizer/ --+--> metadata, list of tensors --> rows
//! *.safetensors --------------- shards ------+
//! ```
//!
//! What GGUF has no way to say is an error and never left out in silence; so is a tensor that nobody asked for.

mod arch;
mod json;
mod rope;
mod shards;
mod tokenizer;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use cchaha::ErrorKind;
use cchaha::gguf::{Dims, Metadata};
use cchaha::plan::Format;
use safetensors::tensor::Dtype;

use crate::exit::{Failure, Result};
use crate::source::{Source, SourceTensor};
use arch::{Arch, Change, Sizes, Weight};
use json::Object;
use shards::{Shards, Stored};

/// Tensors of other parts of a model than its language model.
const OTHER_PARTS: &[&str] =
    &["vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."];
/// What some files have in front of the names of the language model's tensors, and what stands for it there.
const PREFIXES: &[(&str, &str)] =
    &[("", ""), ("model.", "language_model.model."), ("model.", "model.language_model.")];

/// More layers or experts than any published model has, so that no list grows without bound.
const MAX_LAYERS: u32 = 10_000;

/// A checkpoint.
pub(crate) struct HfSource {
    name: String,
    files: Vec<PathBuf>,
    metadata: Metadata,
    tensors: Vec<SourceTensor>,
    /// For each tensor, where its values come from.
    recipes: Vec<Recipe>,
    shards: Shards,
}

/// Where the values of a tensor come from.
enum Recipe {
    Stored(Rows),
    /// Computed from the configuration.
    Values(Vec<f32>),
}

/// Rows in the checkpoint.
struct Rows {
    /// The first row of each of several tensors of the same shape, one after the other.
    parts: Vec<(usize, u64)>,
    rows_per_part: usize,
    dtype: Format,
    order: Order,
    /// What is added to every value.
    plus: f32,
}

/// Which row of the checkpoint a row of the target is.
enum Order {
    Same,
    /// Sizes of so many rows, in which the target's rows `2i` and `2i + 1` are the checkpoint's `i` and `i + n / 2`.
    Pairs(usize),
}

impl Order {
    fn row(&self, row: usize) -> usize {
        match *self {
            Order::Same => row,
            Order::Pairs(head) => row / head * head + row % 2 * (head / 2) + row % head / 2,
        }
    }
}

/// Whether a folder is a checkpoint of this layout.
pub(crate) fn is_checkpoint(path: &Path) -> bool {
    path.is_dir() && path.join("config.json").exists()
}

impl HfSource {
    /// Reads and checks all but the values.
    ///
    /// # Errors
    /// Where a file is missing or damaged, or the model is none that GGUF can hold.
    pub(crate) fn open(folder: &Path) -> Result<HfSource> {
        let path = folder.join("config.json");
        let outer = Object::open(&path)?;
        if outer.is_empty() {
            return Err(damaged(&path, "is missing or empty; a checkpoint has it beside its weights"));
        }
        let arch = Arch::find(&outer)?;
        // Models of several parts keep the language model's keys in an object of their own.
        let config = outer.object("text_config")?.unwrap_or_else(|| outer.clone());

        let mut metadata = Metadata::new();
        let sizes = arch.convert(&config, &mut metadata)?;
        metadata.set("general.name", model_name(&outer, folder)?);
        for (key, n) in [("num_hidden_layers", sizes.n_layers), ("num_experts", sizes.n_experts)] {
            if n > MAX_LAYERS {
                return Err(config.error(key, format_args!("is {n}, expected at most {MAX_LAYERS}")));
            }
        }
        let rope = rope::convert(&config, arch.gguf, arch.rope_base, sizes.head_dim, &mut metadata)?;

        let shards = Shards::open(folder)?;
        let mut source = HfSource {
            name: folder.display().to_string(),
            files: vec![path],
            metadata,
            tensors: Vec::new(),
            recipes: Vec::new(),
            shards,
        };
        source.files.extend_from_slice(source.shards.paths());
        source.add_weights(arch, &sizes, config.bool("tie_word_embeddings")?)?;
        if let Some(factors) = rope.factors {
            if !arch.rope_factors {
                return Err(config.error(
                    "rope_scaling",
                    format_args!("is of type llama3, which a {} model cannot have in GGUF", arch.gguf),
                ));
            }
            source.add(
                "rope_freqs.weight".to_owned(),
                &[factors.len()],
                Format::F32,
                Recipe::Values(factors),
            )?;
        }

        let rows = source.tensors[0].dims.rows();
        source.metadata.set(format!("{}.vocab_size", arch.gguf), rows as u32);
        let generation = Object::open(&folder.join("generation_config.json"))?;
        let files = tokenizer::convert(folder, &outer, &generation, rows, &mut source.metadata)?;
        source.files.extend(files);
        sampling(&generation, &mut source.metadata)?;
        Ok(source)
    }

    fn add_weights(&mut self, arch: &Arch, sizes: &Sizes, tied: Option<bool>) -> Result {
        let other_parts: Vec<String> = self
            .shards
            .left()
            .filter(|name| OTHER_PARTS.iter().any(|part| name.starts_with(part)))
            .map(str::to_owned)
            .collect();
        if !other_parts.is_empty() {
            tracing::warn!("{}: {} tensors of the vision part are left out", self.name, other_parts.len());
        }
        for name in other_parts {
            self.shards.take(&name);
        }
        let (of_layers, others): (Vec<_>, Vec<_>) =
            arch.weights().partition(|weight| weight.gguf.contains("{}"));
        for weight in others {
            if weight.gguf == "output.weight" && tied == Some(true) {
                // Some files hold the embeddings once more under this name.
                self.take(weight.hf);
            } else {
                self.add_weight(weight, None, sizes)?;
            }
        }
        for layer in 0..sizes.n_layers {
            for weight in &of_layers {
                self.add_weight(weight, Some(layer), sizes)?;
            }
            // A buffer of frequencies that old versions of the library saved.
            self.take(&format!("model.layers.{layer}.self_attn.rotary_emb.inv_freq"));
        }
        if tied == Some(false) && !self.tensors.iter().any(|tensor| tensor.name == "output.weight") {
            return Err(self.tensor_error("lm_head.weight", "is missing; get the model again"));
        }
        match self.shards.left().next() {
            Some(name) => Err(Failure::new(
                ErrorKind::Model,
                format!(
                    "{}: tensor {name:?} is not one of a {} model's; leaving it out would give wrong results",
                    self.name, arch.gguf
                ),
            )),
            None => Ok(()),
        }
    }

    /// The tensor of this name, whatever stands in front of it in this checkpoint.
    fn take(&mut self, name: &str) -> Option<Stored> {
        PREFIXES.iter().find_map(|(prefix, instead)| {
            let rest = name.strip_prefix(prefix)?;
            self.shards.take(&format!("{instead}{rest}"))
        })
    }

    fn add_weight(&mut self, weight: &Weight, layer: Option<u32>, sizes: &Sizes) -> Result {
        let in_layer = |name: &str| {
            layer.map_or_else(|| name.to_owned(), |layer| name.replace("{}", &layer.to_string()))
        };
        let (gguf, hf) = (in_layer(weight.gguf), in_layer(weight.hf));
        let names: Vec<String> = match weight.change {
            Change::Experts => (0..sizes.n_experts).map(|e| hf.replace("{e}", &e.to_string())).collect(),
            _ => vec![hf],
        };
        let mut parts: Vec<Stored> = Vec::new();
        for name in &names {
            match self.take(name) {
                Some(stored) => parts.push(stored),
                None if weight.optional => return Ok(()),
                None => return Err(self.tensor_error(name, "is missing; get the model again")),
            }
            let (stored, first) = (&parts[parts.len() - 1], &parts[0]);
            self.check_shape(name, stored, weight, sizes)?;
            if stored.dtype != first.dtype {
                return Err(self.tensor_error(
                    name,
                    format_args!("has type {}, the experts before it {}", stored.dtype, first.dtype),
                ));
            }
        }
        let Some(first) = parts.first() else {
            return Err(self.tensor_error(weight.hf, "needs at least one expert (num_experts)"));
        };
        let name = &names[0];
        let dtype = match first.dtype {
            Dtype::F32 => Format::F32,
            Dtype::F16 => Format::F16,
            Dtype::BF16 => Format::BF16,
            other => {
                return Err(self
                    .tensor_error(name, format_args!("has type {other}, supported are F32, F16 and BF16")));
            }
        };
        let mut dims: Vec<usize> = first.shape.iter().rev().copied().collect();
        let rows_per_part = first.shape.iter().rev().skip(1).product();
        if weight.change == Change::Experts {
            dims.push(parts.len());
        }
        let order = match weight.change {
            Change::PairRows => Order::Pairs(sizes.head_dim as usize),
            _ => Order::Same,
        };
        // Vectors are always stored as F32.
        let format = if dims.len() == 1 { Format::F32 } else { dtype };
        let plus = if weight.change == Change::PlusOne { 1.0 } else { 0.0 };
        let parts = parts.iter().map(|stored| (stored.file, stored.offset)).collect();
        // The rows of a vector are its values, where their order matters, else it is one row.
        let rows_per_part = if dims.len() == 1 { 1 } else { rows_per_part };
        self.add(gguf, &dims, format, Recipe::Stored(Rows { parts, rows_per_part, dtype, order, plus }))
    }

    /// That the tensor is as large as the configuration says.
    fn check_shape(&self, name: &str, stored: &Stored, weight: &Weight, sizes: &Sizes) -> Result {
        let expected: Vec<Option<u64>> = weight.shape.iter().map(|&size| sizes.get(size)).collect();
        let fits =
            |(&found, expected): (&usize, &Option<u64>)| expected.is_none_or(|size| size == found as u64);
        if stored.shape.len() == expected.len() && stored.shape.iter().zip(&expected).all(fits) {
            return Ok(());
        }
        let text = |size: &Option<u64>| size.map_or("any".to_owned(), |size| size.to_string());
        let expected = expected.iter().map(text).collect::<Vec<_>>().join(", ");
        let problem = format!("has shape {:?}, expected [{expected}] by config.json", stored.shape);
        Err(self.tensor_error(name, problem))
    }

    fn add(&mut self, name: String, dims: &[usize], format: Format, recipe: Recipe) -> Result {
        let Some(dims) = Dims::new(dims) else {
            return Err(self.tensor_error(
                &name,
                format_args!("has shape {dims:?}, expected one to four sizes above 0"),
            ));
        };
        self.tensors.push(SourceTensor { name, dims, format });
        self.recipes.push(recipe);
        Ok(())
    }

    fn tensor_error(&self, name: &str, problem: impl std::fmt::Display) -> Failure {
        Failure::new(ErrorKind::Model, format!("{}: tensor {name:?} {problem}", self.name))
    }
}

impl Source for HfSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn files(&self) -> &[PathBuf] {
        &self.files
    }

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn tensors(&self) -> &[SourceTensor] {
        &self.tensors
    }

    fn read_rows(&self, tensor: usize, rows: Range<usize>, out: &mut [f32]) -> Result {
        let stored = match &self.recipes[tensor] {
            Recipe::Values(values) => {
                out.copy_from_slice(values);
                return Ok(());
            }
            Recipe::Stored(stored) => stored,
        };
        let SourceTensor { name, dims, .. } = &self.tensors[tensor];
        let bytes = self.read_stored(stored, dims, rows.clone())?;
        cchaha::kernels::formats::dequantize(stored.dtype, &bytes, out);
        if let Some(bad) = out.iter().position(|value| !value.is_finite()) {
            let (row, col) = (rows.start + bad / dims.cols(), bad % dims.cols());
            return Err(self.tensor_error(
                name,
                format_args!("is {} in row {row}, column {col}, expected a finite number", out[bad]),
            ));
        }
        if stored.plus != 0.0 {
            out.iter_mut().for_each(|value| *value += stored.plus);
        }
        Ok(())
    }

    fn stored_rows(&self, tensor: usize, rows: Range<usize>) -> Option<Cow<'_, [u8]>> {
        let SourceTensor { dims, format, .. } = &self.tensors[tensor];
        match &self.recipes[tensor] {
            Recipe::Stored(stored) if stored.dtype == *format && stored.plus == 0.0 => {
                self.read_stored(stored, dims, rows).ok().map(Cow::Owned)
            }
            _ => None,
        }
    }
}

impl HfSource {
    /// The checkpoint's bytes of these rows of the target. Rows that follow each other are read together.
    fn read_stored(&self, stored: &Rows, dims: &Dims, rows: Range<usize>) -> Result<Vec<u8>> {
        let item = stored.dtype.block_bytes();
        if dims.len() == 1 {
            let (file, offset) = stored.parts[0];
            let mut bytes = vec![0; dims.cols() * item];
            self.shards.read(file, offset, &mut bytes)?;
            // The order of a bias is that of its product's rows.
            return Ok(match stored.order {
                Order::Same => bytes,
                Order::Pairs(_) => (0..dims.cols())
                    .flat_map(|i| {
                        let at = stored.order.row(i) * item;
                        bytes[at..at + item].to_vec()
                    })
                    .collect(),
            });
        }
        let row_bytes = dims.cols() * item;
        let mut bytes = vec![0; rows.len() * row_bytes];
        let place = |row: usize| {
            let (file, offset) = stored.parts[row / stored.rows_per_part];
            (file, offset + (stored.order.row(row % stored.rows_per_part) * row_bytes) as u64)
        };
        let (mut at, mut row) = (0, rows.start);
        while row < rows.end {
            let (file, offset) = place(row);
            let mut len = row_bytes;
            row += 1;
            while row < rows.end && place(row) == (file, offset + len as u64) {
                len += row_bytes;
                row += 1;
            }
            self.shards.read(file, offset, &mut bytes[at..at + len])?;
            at += len;
        }
        Ok(bytes)
    }
}

/// The last part of what the checkpoint calls itself, or of the folder's name.
fn model_name(config: &Object, folder: &Path) -> Result<String> {
    let own = config.str("_name_or_path")?.and_then(|name| name.rsplit('/').find(|part| !part.is_empty()));
    let folder = std::path::absolute(folder).ok();
    let folder = folder.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    Ok(own.map(str::to_owned).or(folder).unwrap_or_else(|| "model".to_owned()))
}

/// How the makers sample, under the names llama.cpp reads.
fn sampling(generation: &Object, metadata: &mut Metadata) -> Result {
    if generation.bool("do_sample")? == Some(false) {
        return Ok(());
    }
    if let Some(top_k) = generation.u32("top_k")? {
        metadata.set("general.sampling.top_k", i32::try_from(top_k).unwrap_or(i32::MAX));
    }
    for (key, gguf) in [
        ("temperature", "temp"),
        ("top_p", "top_p"),
        ("min_p", "min_p"),
        ("repetition_penalty", "penalty_repeat"),
    ] {
        if let Some(value) = generation.f32(key)? {
            metadata.set(format!("general.sampling.{gguf}"), value);
        }
    }
    Ok(())
}

/// An error about a file or folder.
fn damaged(path: &Path, problem: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorKind::Model, format!("{}: {problem}", path.display()))
}
