//! Checkpoints: everything the next step depends on, in f32, written in one step.
//!
//! ```text
//! "cchaha-checkpoint 1\n"   JSON, one line: Head   weights, first, second: f32 each, little-endian, as the layout says
//! ```

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use cchaha_cli::exit::{Failure, Result};
use serde::{Deserialize, Serialize};

use super::{Settings, replace_file};
use crate::data::Position;
use crate::model::{Config, Kind, Layout};
use crate::optim::Optimizer;
use crate::rng::Rng;

const MAGIC: &[u8] = b"cchaha-checkpoint 1\n";
const FILE: &str = "checkpoint.bin";

/// A run between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// What it computes.
    pub settings: Settings,
    /// Where in the data it is.
    pub position: Position,
    /// As the layout says.
    pub weights: Vec<f32>,
    /// What the optimizer remembers.
    pub optimizer: Optimizer,
}

#[derive(Serialize, Deserialize)]
struct Head {
    settings: Settings,
    position: Position,
    step: u64,
}

impl Checkpoint {
    /// Before the first step.
    pub fn new(settings: Settings, weights: Vec<f32>) -> Checkpoint {
        let optimizer = Optimizer::new(&Layout::new(&settings.config));
        Checkpoint { settings, position: Position::default(), weights, optimizer }
    }

    /// The file in a run's folder.
    pub fn path(run: &Path) -> PathBuf {
        run.join(FILE)
    }

    /// Writes it into a run's folder.
    ///
    /// # Errors
    /// Where the file system refuses; then what was there is still there.
    pub fn save(&self, run: &Path) -> Result {
        let path = Checkpoint::path(run);
        let head =
            Head { settings: self.settings.clone(), position: self.position, step: self.optimizer.step };
        replace_file(&path, |file| {
            file.write_all(MAGIC)?;
            serde_json::to_writer(&mut *file, &head)?;
            file.write_all(b"\n")?;
            for list in [&self.weights, &self.optimizer.first, &self.optimizer.second] {
                file.write_all(bytemuck::cast_slice(list))?;
            }
            Ok(())
        })
        .map_err(|error| Failure::other(format!("cannot write {}: {error}", path.display())))
    }

    /// Reads that of a run's folder; `None` where there is none.
    ///
    /// # Errors
    /// Where it is damaged.
    pub fn load(run: &Path) -> Result<Option<Checkpoint>> {
        let path = Checkpoint::path(run);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::usage(format!("cannot read {}: {error}", path.display()))),
        };
        let damaged = |what: &str| Failure::model(format!("{}: {what}", path.display()));
        let len = file.metadata().map_or(0, |metadata| metadata.len());
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut magic = [0; MAGIC.len()];
        let found = reader.read_exact(&mut magic);
        if found.is_err() || magic != MAGIC {
            return Err(damaged("is no checkpoint of this version; take it away or name another --out"));
        }
        let mut line = Vec::new();
        let read = (&mut reader).take(1 << 16).read_until(b'\n', &mut line);
        let head: Option<Head> = read.ok().and_then(|_| serde_json::from_slice(&line).ok());
        let head = head.ok_or_else(|| damaged("its first lines are damaged; use another checkpoint"))?;
        head.settings.config.check()?;
        let n = Layout::new(&head.settings.config).len();
        if len != (MAGIC.len() + line.len()) as u64 + 12 * n as u64 {
            let expected = (MAGIC.len() + line.len()) as u64 + 12 * n as u64;
            return Err(damaged(&format!("has {len} bytes, expected {expected}; use another checkpoint")));
        }
        let mut lists = [vec![0f32; n], vec![0f32; n], vec![0f32; n]];
        for list in &mut lists {
            let read = reader.read_exact(bytemuck::cast_slice_mut(list));
            read.map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
        }
        let [weights, first, second] = lists;
        let optimizer = Optimizer { step: head.step, first, second };
        Ok(Some(Checkpoint { settings: head.settings, position: head.position, weights, optimizer }))
    }

    /// [`Checkpoint::load`] of what must be there.
    ///
    /// # Errors
    /// As there, and where there is none.
    pub fn require(run: &Path) -> Result<Checkpoint> {
        let missing = || Failure::usage(format!("{} holds no checkpoint; train first", run.display()));
        Checkpoint::load(run)?.ok_or_else(missing)
    }
}

/// Random weights: norms 1; embeddings with a deviation of 0.02; matrices with `1 / (2 sqrt(inputs))`, those that write into the
/// residual stream less by the root of how many do.
pub fn initial_weights(config: &Config, seed: u64) -> Vec<f32> {
    let layout = Layout::new(config);
    let mut weights = vec![1.0; layout.len()];
    for (number, tensor) in (0..).zip(&layout.tensors) {
        let residual = tensor.name.contains("attn_output") || tensor.name.contains("ffn_down");
        let deviation = match tensor.kind {
            Kind::Norm => continue,
            Kind::Embedding => 0.02,
            Kind::Matrix if residual => {
                0.5 / (tensor.cols as f64).sqrt() / (2.0 * config.layers as f64).sqrt()
            }
            Kind::Matrix => 0.5 / (tensor.cols as f64).sqrt(),
        };
        let mut rng = Rng::new(seed, number);
        weights[tensor.range.clone()].iter_mut().for_each(|w| *w = (deviation * rng.normal()) as f32);
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::{Hyper, Schedule, Shape};

    fn checkpoint() -> Checkpoint {
        let config = Config {
            vocab: 7,
            width: 8,
            layers: 2,
            heads: 2,
            kv_heads: 1,
            head_dim: 4,
            hidden: 12,
            context: 16,
            window: 4,
            pattern: 2,
            rope_base: 10000.0,
            scope_split: 1,
            sigma: 1.0,
            pins: true,
        };
        let weights = initial_weights(&config, 1);
        let settings = Settings {
            stage: "pretrain".into(),
            config,
            hyper: Hyper::default(),
            schedule: Schedule { shape: Shape::Cosine, warmup: 1, steps: 10, decay: 0.5 },
            batch: 2,
            micro: 1,
            seed: u64::MAX,
            tokenizer: 3,
        };
        let mut checkpoint = Checkpoint::new(settings, weights);
        checkpoint.optimizer.step = 9;
        checkpoint.position = Position { epoch: 1, place: 2, done: 3 };
        checkpoint.optimizer.first[5] = f32::MIN_POSITIVE;
        checkpoint
    }

    #[test]
    fn a_checkpoint_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Checkpoint::load(folder.path()).unwrap(), None);
        let checkpoint = checkpoint();
        checkpoint.save(folder.path()).unwrap();
        assert_eq!(Checkpoint::load(folder.path()).unwrap(), Some(checkpoint));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary is left");
    }

    #[test]
    fn a_damaged_checkpoint_is_an_error_with_the_files_name() {
        let folder = tempfile::tempdir().unwrap();
        checkpoint().save(folder.path()).unwrap();
        let path = Checkpoint::path(folder.path());
        let whole = std::fs::read(&path).unwrap();
        let longer = [&whole[..], &[0]].concat();
        let damages = [&whole[..0], &whole[..10], &whole[..40], &whole[..whole.len() - 1], &longer[..]];
        let text = String::from_utf8_lossy(&whole[..900]).into_owned();
        assert!(text.contains("\"layers\":2"));
        let many = [text.replace("\"layers\":2", "\"layers\":999999999").as_bytes(), &whole[900..]].concat();
        for damaged in damages.into_iter().chain([&many[..]]) {
            std::fs::write(&path, damaged).unwrap();
            let error = Checkpoint::load(folder.path()).unwrap_err();
            let named = error.message().contains("checkpoint.bin") || error.message().contains("sizes");
            assert!(named, "{}", error.message());
        }
    }
}
