//! `train pretrain` and `train code`: the stages of [`STAGES`], one command each.

use std::hash::Hasher;
use std::path::{Path, PathBuf};

use cchaha::kernels::{Pool, physical_cores};
use cchaha::text::Tokenizer;
use cchaha_cli::args::{above_zero, fraction, not_negative, positive, whole};
use cchaha_cli::exit::{Failure, Result};
use cchaha_cli::output::count;
use clap::{Args, ValueHint};
use twox_hash::XxHash64;

use crate::corpus::Split;
use crate::data::{STAGES, Stage, Store};
use crate::import::import;
use crate::model::{Config, Layout};
use crate::optim::{Hyper, Rule, Schedule, Shape};
use crate::run::{Checkpoint, Heldout, Settings, Trainer, initial_weights};

/// What a stage needs.
#[derive(Debug, Args)]
pub struct Train {
    /// Folder of the corpus
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    corpus: PathBuf,

    /// GGUF file with the vocabulary
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    tokenizer: PathBuf,

    /// Folder of the run; a run that is there goes on
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: PathBuf,

    /// Run or GGUF file to start from: its model and its weights
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    from: Option<PathBuf>,

    /// Tokens to learn from, counted each time they are
    #[arg(long, value_name = "N", default_value = "20000000", value_parser = whole::<u64>)]
    tokens: u64,

    /// Sequences of a step
    #[arg(long, value_name = "N", default_value = "4", value_parser = positive)]
    batch: usize,

    /// Sequences that pass through the network together: more need more memory
    #[arg(long, value_name = "N", default_value = "2", value_parser = positive)]
    micro: usize,

    #[command(flatten)]
    model: Model,

    /// Rule for the matrices inside layers
    #[arg(long, value_enum, default_value = "muon")]
    rule: Rule,

    /// Highest learning rate of what Muon trains
    #[arg(long, value_name = "X", default_value_t = Hyper::default().muon_lr as f32, value_parser = not_negative)]
    muon_lr: f32,

    /// Highest learning rate of what AdamW trains
    #[arg(long, value_name = "X", default_value_t = Hyper::default().adam_lr as f32, value_parser = not_negative)]
    adam_lr: f32,

    /// Decay of weights per unit of learning rate
    #[arg(long, value_name = "X", default_value_t = Hyper::default().decay as f32, value_parser = not_negative)]
    weight_decay: f32,

    /// Longest gradient; 0 for no limit
    #[arg(long, value_name = "X", default_value_t = Hyper::default().clip as f32, value_parser = not_negative)]
    clip: f32,

    /// How learning rates fall
    #[arg(long, value_enum, default_value = "wsd")]
    schedule: Shape,

    /// Steps in which learning rates rise
    #[arg(long, value_name = "N", default_value = "50", value_parser = whole::<u64>)]
    warmup: u64,

    /// Part of the steps in which the learning rates of wsd fall
    #[arg(long, value_name = "X", default_value = "0.5", value_parser = fraction)]
    decay: f32,

    /// Measurements of held-out text
    #[arg(long, value_name = "N", default_value = "20", value_parser = whole::<u64>)]
    measurements: u64,

    /// Sequences of held-out text to measure each time
    #[arg(long, value_name = "N", default_value = "64", value_parser = positive)]
    heldout: usize,

    /// Seed of the initial weights and of the order of the data
    #[arg(long, value_name = "N", default_value = "1", value_parser = whole::<u64>)]
    seed: u64,

    /// Seconds between checkpoints
    #[arg(long, value_name = "N", default_value = "120", value_parser = whole::<u64>)]
    keep: u64,

    /// Worker threads [default: one per physical core]
    #[arg(long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,
}

/// The model's sizes.
#[derive(Debug, Args)]
pub(super) struct Model {
    /// Width of the residual stream
    #[arg(long, value_name = "N", default_value = "256", value_parser = positive)]
    width: usize,

    /// Layers
    #[arg(long, value_name = "N", default_value = "8", value_parser = positive)]
    layers: usize,

    /// Heads of Q
    #[arg(long, value_name = "N", default_value = "4", value_parser = positive)]
    heads: usize,

    /// Heads of K and V
    #[arg(long, value_name = "N", default_value = "2", value_parser = positive)]
    kv_heads: usize,

    /// Values of a head
    #[arg(long, value_name = "N", default_value = "64", value_parser = positive)]
    head_dim: usize,

    /// Width of the feed-forward block
    #[arg(long, value_name = "N", default_value = "704", value_parser = positive)]
    hidden: usize,

    /// Tokens of a sequence
    #[arg(long, value_name = "N", default_value = "1024", value_parser = positive)]
    context: usize,

    /// Newest tokens a windowed layer sees
    #[arg(long, value_name = "N", default_value = "256", value_parser = positive)]
    window: usize,

    /// Every so many layers one sees everything; 0 for none
    #[arg(long, value_name = "N", default_value = "4", value_parser = whole::<usize>)]
    pattern: usize,

    /// Base of the rotary frequencies
    #[arg(long, value_name = "X", default_value = "10000", value_parser = above_zero)]
    rope_base: f32,

    /// First rotary pair that turns with the scope [default: three quarters of the pairs turn with the token]
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    scope_split: Option<usize>,

    /// What a scope position is worth in token positions
    #[arg(long, value_name = "X", default_value = "8", value_parser = not_negative)]
    sigma: f32,

    /// Windowed layers do not see imports and headers beyond their window
    #[arg(long)]
    no_pins: bool,
}

impl Model {
    /// Tokens of a sequence.
    pub(super) fn context(&self) -> usize {
        self.context
    }

    /// With a vocabulary of this size.
    pub(super) fn config(&self, vocab: usize) -> Config {
        let pairs = self.head_dim / 2;
        Config {
            vocab,
            width: self.width,
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            hidden: self.hidden,
            context: self.context,
            window: self.window,
            pattern: self.pattern,
            rope_base: f64::from(self.rope_base),
            scope_split: self.scope_split.unwrap_or(pairs - pairs / 4),
            sigma: f64::from(self.sigma),
            pins: !self.no_pins,
        }
    }
}

impl Train {
    /// Runs the stage of this name.
    ///
    /// # Errors
    /// Where something cannot be read or written, settings do not fit, and on Ctrl-C.
    pub fn run(self, stage: &str) -> Result {
        let stage = STAGES.iter().find(|row| row.name == stage).expect("invariant: commands name stages");
        let pool = Pool::new(self.threads.unwrap_or_else(physical_cores)).map_err(Failure::other)?;
        let unwritable = |error| Failure::other(format!("cannot write into {}: {error}", self.out.display()));
        std::fs::create_dir_all(&self.out).map_err(unwritable)?;
        let (tokenizer, bytes) = read_tokenizer(&self.tokenizer)?;
        let hash = hash(&bytes);
        let start = self.from.as_deref().map(|from| self.start(from, hash)).transpose()?;
        let config = match &start {
            Some((config, _)) => config.clone(),
            None => self.model.config(tokenizer.vocab_len()),
        };
        config.check()?;
        let settings = self.settings(stage, config, hash);

        let checkpoint = match Checkpoint::load(&self.out)? {
            Some(checkpoint) => {
                settings.check_same(&checkpoint.settings)?;
                checkpoint
            }
            None => {
                let weights = match start {
                    Some((_, weights)) => weights,
                    None => initial_weights(&settings.config, settings.seed),
                };
                Checkpoint::new(settings.clone(), weights)
            }
        };
        crate::run::replace_file(&self.out.join("tokenizer.gguf"), |file| {
            std::io::Write::write_all(file, &bytes)
        })
        .map_err(unwritable)?;
        let prepare = |stage: &Stage, split: Split| {
            let cache = self.out.join(format!("{}-{}.tokens", stage.name, split.name()));
            let tokenizer = (&tokenizer, &bytes[..]);
            Store::prepare(&pool, stage, split, &self.corpus, tokenizer, settings.config.context, &cache)
        };
        let store = prepare(stage, Split::Train)?;
        // Held-out text is measured as it is, whatever the stage makes of texts.
        let heldout = prepare(&STAGES[0], Split::Heldout)?;
        let steps = settings.schedule.steps;
        eprintln!(
            "{}: {} parameters, {} tokens of {} bytes ({:.2} bytes per token), {} steps of {} tokens",
            stage.name,
            count(Layout::new(&settings.config).len() as f64),
            count(store.tokens() as f64),
            count(store.bytes() as f64),
            store.bytes() as f64 / store.tokens().max(1) as f64,
            steps,
            settings.batch * settings.config.context,
        );
        let heldout = Heldout {
            store: &heldout,
            every: (steps / self.measurements.max(1)).max(1),
            sequences: self.heldout,
        };
        let mut trainer = Trainer::new(&pool, checkpoint, &store)?;
        trainer.keep = std::time::Duration::from_secs(self.keep);
        trainer.run(&self.out, (self.measurements > 0).then_some(&heldout))
    }

    /// The model and the weights of a run or of a GGUF file.
    fn start(&self, from: &Path, tokenizer: u64) -> Result<(Config, Vec<f32>)> {
        if !from.is_dir() {
            return import(from, &self.tokenizer);
        }
        let run = Checkpoint::require(from)?;
        if run.settings.tokenizer != tokenizer {
            return Err(Failure::usage(format!(
                "{} was trained with another vocabulary; give the one in its folder",
                from.display()
            )));
        }
        Ok((run.settings.config, run.weights))
    }

    fn settings(&self, stage: &Stage, config: Config, tokenizer: u64) -> Settings {
        let per_step = (self.batch * config.context) as u64;
        let steps = self.tokens.div_ceil(per_step);
        Settings {
            stage: stage.name.to_owned(),
            config,
            hyper: Hyper {
                rule: self.rule,
                muon_lr: f64::from(self.muon_lr),
                adam_lr: f64::from(self.adam_lr),
                decay: f64::from(self.weight_decay),
                clip: f64::from(self.clip),
            },
            schedule: Schedule {
                shape: self.schedule,
                warmup: self.warmup.min(steps / 2),
                steps,
                decay: f64::from(self.decay),
            },
            batch: self.batch,
            micro: self.micro,
            seed: self.seed,
            tokenizer,
        }
    }
}

/// A vocabulary and the file it is in.
pub(super) fn read_tokenizer(path: &Path) -> Result<(Tokenizer, Vec<u8>)> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    let gguf = cchaha::gguf::Gguf::open(path).map_err(cchaha::Error::from)?;
    let tokenizer = Tokenizer::from_gguf(gguf.metadata())
        .map_err(|error| Failure::model(format!("{}: {error}", path.display())))?;
    Ok((tokenizer, bytes))
}

/// What tells one vocabulary from another.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hash = XxHash64::with_seed(0);
    hash.write(bytes);
    hash.finish()
}
