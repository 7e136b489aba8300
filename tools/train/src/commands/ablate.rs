//! `train ablate`: the study of [`crate::ablation`], one run after the other, on disk.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cchaha::kernels::{Pool, physical_cores};
use cchaha::text::Tokenizer;
use cchaha_cli::args::{positive, whole};
use cchaha_cli::exit::{Failure, Result};
use cchaha_cli::interrupt::Stoppable;
use cchaha_cli::output::Out;
use clap::{Args, ValueHint};
use serde::{Deserialize, Serialize};

use super::train::{Model, hash, read_tokenizer};
use crate::ablation::{Difference, VARIANTS, Variant, Vocabulary, difference, picture};
use crate::corpus::{self, Document, Split};
use crate::data::{STAGES, Store};
use crate::evaluate::{self, Cost};
use crate::optim::{Hyper, Schedule, Shape};
use crate::run::{Checkpoint, Settings, Trainer, initial_weights, replace_file};

/// What to compare.
#[derive(Debug, Args)]
pub struct Ablate {
    /// Folder of the corpus
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    corpus: PathBuf,

    /// Vocabulary of plain byte-pair encoding
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    plain: PathBuf,

    /// Hybrid vocabulary of the same size
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    hybrid: PathBuf,

    /// Hybrid vocabulary of the same size with classes drawn by lot
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    lots: PathBuf,

    /// Folder of the study; a study that is there goes on
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: PathBuf,

    /// Seeds of every variant
    #[arg(long, value_name = "N", default_value = "3", value_parser = positive)]
    seeds: usize,

    /// Training tokens of every run
    #[arg(long, value_name = "N", default_value = "2000000", value_parser = whole::<u64>)]
    tokens: u64,

    /// About so many bytes of held-out documents; 0 for all
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = whole::<usize>)]
    bytes: usize,

    /// Only these variants, separated by commas; the baseline always
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,

    #[command(flatten)]
    model: Model,

    /// Sequences of a step
    #[arg(long, value_name = "N", default_value = "4", value_parser = positive)]
    batch: usize,

    /// Worker threads [default: one per physical core]
    #[arg(long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,
}

/// What is kept of a run that is done.
#[derive(Serialize, Deserialize)]
struct Done {
    settings: Settings,
    /// Of every document: bytes, tokens, bits.
    costs: Vec<(usize, usize, f64)>,
}

/// A vocabulary with its texts.
struct Texts {
    tokenizer: Tokenizer,
    hash: u64,
    store: Store,
}

impl Ablate {
    /// Trains what is missing, then compares.
    ///
    /// # Errors
    /// Where something cannot be read or written, vocabularies differ in size, and on Ctrl-C.
    pub fn run(self) -> Result {
        let pool = Pool::new(self.threads.unwrap_or_else(physical_cores)).map_err(Failure::other)?;
        let unwritable = |error| Failure::other(format!("cannot write into {}: {error}", self.out.display()));
        std::fs::create_dir_all(&self.out).map_err(unwritable)?;
        let documents: Vec<Document> = corpus::documents(&self.corpus, Split::Heldout)
            .and_then(Iterator::collect)
            .map_err(|error| Failure::usage(error.to_string()))?;
        let documents = evaluate::sample(documents, self.bytes);
        if documents.is_empty() {
            return Err(Failure::usage("the corpus holds no held-out document"));
        }
        let known = |name: &String| VARIANTS.iter().any(|variant| variant.name == name);
        if let Some(name) = self.only.iter().find(|name| !known(name)) {
            let names: Vec<&str> = VARIANTS.iter().map(|variant| variant.name).collect();
            return Err(Failure::usage(format!(
                "there is no variant {name}; there are {}",
                names.join(", ")
            )));
        }
        let wanted = |variant: &&Variant| {
            self.only.is_empty()
                || variant.name == "baseline"
                || self.only.iter().any(|name| name == variant.name)
        };
        let variants: Vec<&Variant> = VARIANTS.iter().filter(wanted).collect();
        let mut results: BTreeMap<&str, Vec<Vec<Cost>>> = BTreeMap::new();
        for vocabulary in [Vocabulary::Plain, Vocabulary::Hybrid, Vocabulary::Lots] {
            let of = variants.iter().filter(|variant| variant.vocabulary == vocabulary);
            let mut texts = None;
            for variant in of {
                for seed in 1..=self.seeds as u64 {
                    if texts.is_none() {
                        texts = Some(self.texts(&pool, vocabulary)?);
                    }
                    let texts = texts.as_ref().expect("invariant: made above");
                    let costs = self.one(&pool, variant, seed, texts, &documents)?;
                    results.entry(variant.name).or_default().push(costs);
                }
            }
        }
        self.report(&variants, &results, &documents)
    }

    fn texts(&self, pool: &Pool, vocabulary: Vocabulary) -> Result<Texts> {
        let (file, name) = match vocabulary {
            Vocabulary::Plain => (&self.plain, "plain"),
            Vocabulary::Hybrid => (&self.hybrid, "hybrid"),
            Vocabulary::Lots => (&self.lots, "lots"),
        };
        let (tokenizer, bytes) = read_tokenizer(file)?;
        let (expected, _) = read_tokenizer(&self.plain)?;
        if tokenizer.vocab_len() != expected.vocab_len() {
            return Err(Failure::usage(format!(
                "{} has {} tokens and {} has {}: parameters are equal only with vocabularies of one size",
                file.display(),
                tokenizer.vocab_len(),
                self.plain.display(),
                expected.vocab_len()
            )));
        }
        let cache = self.out.join(format!("{name}.tokens"));
        let (split, given) = (Split::Train, (&tokenizer, &bytes[..]));
        let store =
            Store::prepare(pool, &STAGES[0], split, &self.corpus, given, self.model.context(), &cache)?;
        Ok(Texts { tokenizer, hash: hash(&bytes), store })
    }

    fn settings(&self, variant: &Variant, seed: u64, texts: &Texts) -> Result<Settings> {
        let config = variant.config(&self.model.config(texts.tokenizer.vocab_len()));
        config.check()?;
        let steps = self.tokens.div_ceil((self.batch * config.context) as u64);
        Ok(Settings {
            stage: STAGES[0].name.to_owned(),
            hyper: Hyper::default(),
            schedule: Schedule { shape: Shape::Wsd, warmup: (steps / 20).min(50), steps, decay: 0.5 },
            batch: self.batch,
            micro: 2,
            seed,
            tokenizer: texts.hash,
            config,
        })
    }

    /// One run: what every document costs in the end.
    fn one(
        &self,
        pool: &Pool,
        variant: &Variant,
        seed: u64,
        texts: &Texts,
        documents: &[Document],
    ) -> Result<Vec<Cost>> {
        let folder = self.out.join(format!("{}-{seed}", variant.name));
        let settings = self.settings(variant, seed, texts)?;
        if let Some(done) = read_done(&folder) {
            settings.check_same(&done.settings)?;
            if done.costs.len() == documents.len() {
                let cost = |&(bytes, tokens, bits): &(usize, usize, f64)| Cost { bytes, tokens, bits };
                return Ok(done.costs.iter().map(cost).collect());
            }
        }
        let unwritable = |error| Failure::other(format!("cannot write into {}: {error}", folder.display()));
        std::fs::create_dir_all(&folder).map_err(unwritable)?;
        eprintln!("{} with seed {seed}", variant.name);
        let checkpoint = match Checkpoint::load(&folder)? {
            Some(checkpoint) => {
                settings.check_same(&checkpoint.settings)?;
                checkpoint
            }
            None => Checkpoint::new(settings.clone(), initial_weights(&settings.config, seed)),
        };
        let changed = variant.changes().then(|| texts.store.changed(&|tokens| variant.change(tokens)));
        let mut trainer = Trainer::new(pool, checkpoint, changed.as_ref().unwrap_or(&texts.store))?;
        trainer.run(&folder, None)?;
        let stop = Stoppable::begin();
        let costs = evaluate::of_checkpoint(
            pool,
            &trainer.checkpoint,
            &texts.tokenizer,
            documents,
            &|tokens| variant.change(tokens),
            &mut |_| stop.flow(),
        )?;
        let rows = costs.iter().map(|cost| (cost.bytes, cost.tokens, cost.bits)).collect();
        let done = serde_json::to_vec(&Done { settings, costs: rows }).map_err(Failure::other)?;
        replace_file(&folder.join("costs.json"), |file| file.write_all(&done)).map_err(unwritable)?;
        Ok(costs)
    }

    fn report(
        &self,
        variants: &[&Variant],
        results: &BTreeMap<&str, Vec<Vec<Cost>>>,
        documents: &[Document],
    ) -> Result {
        let mut packages: Vec<&str> = documents.iter().map(|document| document.package.as_str()).collect();
        packages.sort_unstable();
        packages.dedup();
        let group = |document: &Document| packages.binary_search(&document.package.as_str()).unwrap_or(0);
        let groups: Vec<usize> = documents.iter().map(group).collect();
        let against = |a: &str, b: &str| difference(&results[a], &results[b], &groups);
        let mut text = String::from(
            "| variant | bits per byte | less the baseline | 95% interval | bytes per token | verdict |\n\
             |---|---|---|---|---|---|\n",
        );
        let mut rows: Vec<(&str, bool, Difference)> = Vec::new();
        for variant in variants {
            let sum = Cost::sum(results[variant.name].iter().flatten());
            let to_baseline = against(variant.name, "baseline");
            let placebos: Vec<&&Variant> =
                variants.iter().filter(|v| v.placebo_of == Some(variant.name)).collect();
            let beaten = placebos.iter().filter(|v| against(variant.name, v.name).is_better()).count();
            let verdict = match variant {
                _ if variant.name == "baseline" => String::new(),
                _ if variant.placebo_of.is_some() => "placebo".to_owned(),
                _ if !to_baseline.is_better() => "does not beat the baseline".to_owned(),
                _ if beaten < placebos.len() => {
                    format!("beats the baseline and {beaten} of {} placebos: no win", placebos.len())
                }
                _ => "wins".to_owned(),
            };
            let _ = writeln!(
                text,
                "| {} | {:.4} | {:+.4} | {:+.4} .. {:+.4} | {:.3} | {verdict} |",
                variant.name,
                sum.bits_per_byte(),
                to_baseline.mean,
                to_baseline.low,
                to_baseline.high,
                sum.bytes as f64 / sum.tokens as f64,
            );
            if variant.name != "baseline" {
                rows.push((variant.name, variant.placebo_of.is_some(), to_baseline));
            }
        }
        let _ = writeln!(
            text,
            "\n{} seeds, {} training tokens each, {} held-out documents of {} packages.",
            self.seeds,
            self.tokens,
            documents.len(),
            packages.len()
        );
        let unwritable = |error| Failure::other(format!("cannot write into {}: {error}", self.out.display()));
        let write = |name: &str, text: &str| {
            replace_file(&self.out.join(name), |file| file.write_all(text.as_bytes()))
        };
        write("ablation.md", &text).map_err(unwritable)?;
        write("ablation.svg", &picture(&rows)).map_err(unwritable)?;
        let mut out = Out::new();
        out.text(&text)?;
        out.flush()
    }
}

fn read_done(folder: &Path) -> Option<Done> {
    serde_json::from_slice(&std::fs::read(folder.join("costs.json")).ok()?).ok()
}
