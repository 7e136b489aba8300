//! A run of training: its settings, its steps, what it leaves on disk.
//!
//! ```text
//! OUT/checkpoint.bin   weights, optimizer, place in the data: everything the next step depends on
//! OUT/tokenizer.gguf   the vocabulary
//! OUT/loss.tsv         one line per step       OUT/heldout.tsv   bits per byte of held-out text
//! OUT/loss.svg         both, drawn             OUT/*.tokens      texts as tokens, to save making them again
//! ```

mod checkpoint;
mod curve;
mod trainer;

use std::fs::File;
use std::io;
use std::path::Path;

use cchaha_cli::exit::{Failure, Result};
use serde::{Deserialize, Serialize};

pub use checkpoint::{Checkpoint, initial_weights};
pub use curve::Curve;
pub use trainer::{Heldout, Trainer};

use crate::model::Config;
use crate::optim::{Hyper, Schedule};

/// Everything that decides what a run computes, besides its data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The stage's name.
    pub stage: String,
    /// The model.
    pub config: Config,
    /// The optimizer.
    pub hyper: Hyper,
    /// Learning rates.
    pub schedule: Schedule,
    /// Sequences of a step.
    pub batch: usize,
    /// Sequences that pass through the network together: more need more memory. Losses depend on it in their last bits.
    pub micro: usize,
    /// Of the initial weights and the order of the data.
    pub seed: u64,
    /// XXH64 of the vocabulary's file.
    pub tokenizer: u64,
}

impl Settings {
    /// That a run that is there may go on with these.
    ///
    /// # Errors
    /// Names what differs.
    pub fn check_same(&self, stored: &Settings) -> Result {
        let values = |settings: &Settings| serde_json::to_value(settings).map_err(Failure::other);
        match difference("", &values(stored)?, &values(self)?) {
            Some(difference) => Err(Failure::usage(format!(
                "the run that is there has other settings: {difference}; give the same, or another --out"
            ))),
            None => Ok(()),
        }
    }
}

/// The first place where two values differ.
fn difference(name: &str, a: &serde_json::Value, b: &serde_json::Value) -> Option<String> {
    if let (Some(a), Some(b)) = (a.as_object(), b.as_object()) {
        return a.iter().find_map(|(key, a)| difference(key, a, b.get(key)?));
    }
    (a != b).then(|| format!("{name} was {a} and is {b}"))
}

/// Writes a file in one step: whatever happens, `path` holds what it held before or all of the new.
///
/// # Errors
/// What `write` or the file system says.
pub fn replace_file(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!("{name}.tmp"));
    let mut file = File::create(&temporary)?;
    let written = write(&mut file).and_then(|()| file.sync_all());
    match written.and_then(|()| std::fs::rename(&temporary, path)) {
        Ok(()) => Ok(()),
        Err(error) => {
            let _ = std::fs::remove_file(&temporary);
            Err(error)
        }
    }
}
