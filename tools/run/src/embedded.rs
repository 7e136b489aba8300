//! The model inside the program: ours, trained by `train`, for a first run without any download.

use std::sync::Arc;

use cchaha::Model;
use cchaha::gguf::Gguf;
use cchaha::plan::Bytes;

use crate::exit::Result;

/// Weights are read where they lie, so they must lie as aligned as in a mapped file.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!("../assets/cchaha-tiny.gguf"));

/// Opens it.
pub(crate) fn model() -> Result<Model> {
    let gguf = Gguf::from_bytes("cchaha-tiny", Bytes::new(Arc::new(&FILE.0))).map_err(cchaha::Error::from)?;
    Ok(Model::from_gguf(gguf)?)
}

/// What it is, how good it is, and how to get a real model.
pub(crate) fn about(model: &Model) -> String {
    let description = model.gguf().metadata().str("general.description").ok().flatten();
    format!(
        "no -m: {}, the model in this program ({}); for a real one: -m hf:Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF:Q4_K_M",
        model.name(),
        description.unwrap_or("no description")
    )
}
