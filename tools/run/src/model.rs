//! From flags to a model.

use std::path::PathBuf;
use std::sync::Arc;

use cchaha::{Model, Session};

use crate::args::{DeviceArgs, ModelArgs};
use crate::embedded;
use crate::exit::{Failure, Result};
use crate::hub::{self, Reference};
use crate::output::{DIM, bytes};

const NO_MODEL: &str = "no model given: name a GGUF file with -m FILE";

const GET_ONE: &str = "\
Any GGUF file of a supported architecture will do. To get a small code model (491 MB) and use it:

  cchaha-run complete -m hf:Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF:Q4_K_M -p 'def fibonacci(n):'

Larger ones answer better: put 1.5B, 3B or 7B in place of 0.5B. `cchaha-run pull` lists models by short names.

Set CCHAHA_ARG_MODEL to a file to use it whenever -m is not given.";

impl ModelArgs {
    /// The file, or how to get one.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let model = self.model.clone().ok_or_else(|| Failure::usage(NO_MODEL).hint(GET_ONE))?;
        match Reference::in_flag(&model) {
            Some(reference) => hub::resolve(&reference?),
            None => Ok(model),
        }
    }

    /// Opens and checks it.
    pub(crate) fn open(&self) -> Result<Model> {
        Ok(Model::open(&self.path()?)?)
    }

    /// Whether the model in the program answers.
    pub(crate) fn is_embedded(&self) -> bool {
        self.model.is_none()
    }

    /// The same, or where no file is named the model in the program, with a line that says so.
    pub(crate) fn open_or_embedded(&self) -> Result<Model> {
        if self.model.is_some() {
            return self.open();
        }
        let model = embedded::model()?;
        anstream::eprintln!("{DIM}{}{DIM:#}", embedded::about(&model));
        Ok(model)
    }
}

impl DeviceArgs {
    /// Gets ready to continue `text`, of `tokens` tokens with its continuation.
    pub(crate) fn session(&self, model: &Arc<Model>, text: &str, tokens: usize) -> Result<Session> {
        let session = Session::new(model, &self.options_for(model, text, tokens))?;
        let footprint = session.footprint();
        tracing::info!(
            "{} on {}: weights {}, KV cache of {} tokens {}, buffers {}",
            model.name(),
            session.backend_name(),
            bytes(model.plan().weight_bytes()),
            session.context(),
            bytes(footprint.kv_bytes),
            bytes(footprint.buffer_bytes)
        );
        Ok(session)
    }
}
