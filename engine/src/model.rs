//! A model file made ready: its plan, its tokenizer, its chat templates.

use std::path::Path;
use std::sync::Arc;

use cchaha_gguf::Gguf;
use cchaha_plan::Plan;

use crate::error::{Error, Result};
use crate::models;
use crate::text::Tokenizer;

/// An open, checked model. Weights stay in the mapped file; share it with [`Arc`].
#[derive(Debug)]
pub struct Model {
    gguf: Gguf,
    plan: Arc<Plan>,
    tokenizer: Tokenizer,
    name: String,
}

impl Model {
    /// Opens a GGUF file, or all parts of a split one by any of them.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Model`] where the file is missing or damaged, or asks for what the engine does not know.
    pub fn open(path: &Path) -> Result<Model> {
        Model::from_gguf(Gguf::open(path)?)
    }

    /// Makes a model of an open file.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Model`] where the file contradicts itself or asks for what the engine does not know.
    pub fn from_gguf(gguf: Gguf) -> Result<Model> {
        let plan = Arc::new(models::build(&gguf)?);
        let tokenizer = Tokenizer::from_gguf(gguf.metadata())
            .map_err(|error| Error::model(format!("{}: {error}", gguf.name())))?;
        if tokenizer.vocab_len() != plan.vocab {
            return Err(Error::model(format!(
                "{}: the tokenizer has {} tokens and token_embd.weight {}, expected as many; get the model again",
                gguf.name(),
                tokenizer.vocab_len(),
                plan.vocab
            )));
        }
        let name = match gguf.metadata().str("general.name")? {
            Some(name) if !name.trim().is_empty() => name.trim().to_owned(),
            _ => Path::new(gguf.name())
                .file_stem()
                .map_or_else(String::new, |s| s.to_string_lossy().into_owned()),
        };
        Ok(Model { gguf, plan, tokenizer, name })
    }

    /// The file.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// What one forward pass computes.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Text to tokens and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// `general.name`, or the file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Source of the chat template of this name, or of the main one; `None` where the file has none.
    pub fn chat_template(&self, name: Option<&str>) -> Option<&str> {
        let key = match name {
            None | Some("default") => "tokenizer.chat_template".to_owned(),
            Some(name) => format!("tokenizer.chat_template.{name}"),
        };
        self.gguf.metadata().str(&key).ok().flatten()
    }

    /// Tokens of context the model was trained for.
    pub fn context(&self) -> usize {
        self.plan.context
    }
}
