//! Architectures: one file each, metadata to plan, and one row in `ARCHITECTURES`.

mod builder;
mod cchaha;
mod gemma3;
mod granite;
mod keys;
mod llama;
mod qwen2;
mod qwen3;
mod qwen3moe;
mod starcoder2;

use cchaha_gguf::Gguf;
use cchaha_plan::Plan;

use crate::error::{Error, Result};
use builder::Builder;
pub(crate) use keys::Keys;

/// Adds the steps of a forward pass.
type Build = fn(&mut Builder<'_>) -> Result<()>;

/// Every supported architecture by its name in `general.architecture`.
const ARCHITECTURES: &[(&str, Build)] = &[
    ("cchaha", cchaha::build),
    ("gemma3", gemma3::build),
    ("granite", granite::build),
    ("llama", llama::build),
    ("qwen2", qwen2::build),
    ("qwen3", qwen3::build),
    ("qwen3moe", qwen3moe::build),
    ("starcoder2", starcoder2::build),
];

/// Names of the supported architectures, in alphabetical order.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    ARCHITECTURES.iter().map(|row| row.0)
}

/// The plan of the model in this file.
///
/// # Errors
/// [`crate::ErrorKind::Model`] for an unknown architecture, a key or tensor the engine does not know, a missing
/// tensor, or one of another shape than the metadata says.
pub fn build(gguf: &Gguf) -> Result<Plan> {
    let name = gguf.metadata().require_str("general.architecture")?;
    let Some((_, build)) = ARCHITECTURES.iter().find(|row| row.0 == name) else {
        let names: Vec<&str> = architectures().collect();
        return Err(Error::model(format!(
            "{}: architecture \"{name}\" is not supported; supported are {}",
            gguf.name(),
            names.join(", ")
        )));
    };
    let mut builder = Builder::new(gguf, name)?;
    build(&mut builder)?;
    builder.finish()
}
