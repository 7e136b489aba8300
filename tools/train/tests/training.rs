//! Whole trainings: against PyTorch, to the bottom of a short text, and through the program with a kill in between.

mod vocabulary;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cchaha::kernels::Pool;
use cchaha_train::model::{Batch, Config, Kind, Layout, Network, Sequence, Step};
use cchaha_train::optim::{Hyper, Optimizer, Rule, Schedule, Shape};
use cchaha_train::run::initial_weights;
use serde_json::Value;

/// As `numbers` of tests/train/reference.py.
fn numbers() -> impl Iterator<Item = f32> {
    let mut state = 1u64;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 25) as f32 - 0.25
    })
}

fn list(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

fn sequence(value: &Value) -> Sequence {
    Sequence {
        tokens: list(&value["tokens"]),
        targets: list(&value["targets"]),
        positions: list(&value["positions"]),
        scopes: list(&value["scopes"]),
        pinned: value["pinned"].as_array().unwrap().iter().map(|x| x.as_bool().unwrap()).collect(),
        document: list(&value["document"]),
    }
}

/// tests/train/reference.json is what tests/train/reference.py writes.
#[test]
fn losses_are_those_of_an_independent_implementation() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/train/reference.json");
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let config: Config = serde_json::from_value(expected["config"].clone()).unwrap();
    let number = |name: &str| expected[name].as_f64().unwrap();
    let sequences: Vec<Sequence> = expected["sequences"].as_array().unwrap().iter().map(sequence).collect();
    let layout = Layout::new(&config);
    let mut draw = numbers();
    let mut weights: Vec<f32> = Vec::new();
    for tensor in &layout.tensors {
        let offset = if tensor.kind == Kind::Norm { 1.0 } else { 0.0 };
        weights.extend(draw.by_ref().take(tensor.range.len()).map(|x| x + offset));
    }
    let lr = number("learning_rate");
    let hyper = Hyper {
        rule: Rule::Adamw,
        muon_lr: 0.0,
        adam_lr: lr,
        decay: number("weight_decay"),
        clip: number("clip"),
    };
    let (steps, batch) = (number("steps") as u64, number("batch") as usize);
    let schedule = Schedule { shape: Shape::Wsd, warmup: number("warmup") as u64, steps, decay: 0.5 };
    let losses = expected["losses"].as_array().unwrap();
    assert_eq!(losses.len(), 50);
    let pool = Pool::new(2).unwrap();
    let mut network = Network::<f32>::new(&config);
    let mut optimizer = Optimizer::new(&layout);
    for (step, expected) in losses.iter().enumerate() {
        let chosen = (0..batch).map(|i| sequences[(step * batch + i) % sequences.len()].clone());
        let batch = Batch { sequences: chosen.collect() };
        let targets = batch.targets() as f64;
        let mut gradients = vec![0.0; layout.len()];
        let wanted = Step { scale: (1.0 / targets) as f32, gradients: &mut gradients };
        let loss = network.run(&pool, &weights, &batch, Some(wanted)) / targets;
        let factor = schedule.factor(step as u64);
        optimizer.update(&pool, &layout, &hyper, factor, &mut weights, &mut gradients);
        let expected = expected.as_f64().unwrap();
        assert!((loss - expected).abs() < 1e-4, "step {step}: {loss}, PyTorch has {expected}");
    }
}

#[test]
fn two_layers_learn_a_kilobyte_by_heart() {
    let config = Config {
        vocab: 256,
        width: 64,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        head_dim: 32,
        hidden: 128,
        context: 512,
        window: 64,
        pattern: 2,
        rope_base: 10000.0,
        scope_split: 12,
        sigma: 1.0,
        pins: true,
    };
    let source = include_str!("../src/ops/swiglu.rs");
    let tokens: Vec<u32> = source.bytes().take(1025).map(u32::from).collect();
    assert_eq!(tokens.len(), 1025);
    let scopes: Vec<u32> = (0..1025).map(|i| i / 100).collect();
    let sequences = [0, 512].map(|start| {
        let mut sequence = Sequence::default();
        let range = start..start + 513;
        sequence.push(&tokens[range.clone()], &scopes[range], &[false; 513]);
        sequence
    });
    let batch = Batch { sequences: sequences.to_vec() };
    let (pool, layout) = (Pool::new(2).unwrap(), Layout::new(&config));
    let mut weights = initial_weights(&config, 3);
    let mut network = Network::<f32>::new(&config);
    let mut optimizer = Optimizer::new(&layout);
    let hyper = Hyper { muon_lr: 0.02, adam_lr: 0.01, decay: 0.0, ..Hyper::default() };
    let schedule = Schedule { shape: Shape::Wsd, warmup: 5, steps: 300, decay: 0.5 };
    let mut bits = f64::INFINITY;
    for step in 0..300 {
        let mut gradients = vec![0.0; layout.len()];
        let wanted = Step { scale: 1.0 / 1024.0, gradients: &mut gradients };
        bits = network.run(&pool, &weights, &batch, Some(wanted)) / 1024.0 / std::f64::consts::LN_2;
        if bits < 0.01 {
            break;
        }
        let factor = schedule.factor(step);
        optimizer.update(&pool, &layout, &hyper, factor, &mut weights, &mut gradients);
    }
    assert!(bits < 0.01, "{bits} bits per byte");
}

const SIZES: &str = "--width 32 --layers 2 --heads 2 --kv-heads 1 --head-dim 16 --hidden 48 --context 64 --window 16 \
                     --pattern 2 --batch 4";

/// A folder with a corpus of this crate's own sources and a vocabulary of bytes.
fn material(folder: &Path) -> Vec<String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |name: &str| std::fs::read_to_string(sources.join(name)).unwrap();
    for (split, names) in
        [("train", &["model/network.rs", "run/trainer.rs", "data/store.rs"][..]), ("heldout", &["real.rs"])]
    {
        let mut out = Vec::new();
        for name in names {
            let document = cchaha_train::corpus::Document {
                language: "rust".into(),
                package: "train".into(),
                path: (*name).into(),
                text: read(name),
            };
            cchaha_train::corpus::write(&mut out, &document).unwrap();
        }
        std::fs::write(folder.join(format!("{split}.docs")), out).unwrap();
    }
    vocabulary::bytes(&folder.join("bytes.gguf"));
    let path = |name: &str| folder.join(name).display().to_string();
    let mut arguments: Vec<String> =
        ["--corpus", &path(""), "--tokenizer", &path("bytes.gguf")].map(String::from).to_vec();
    arguments.extend(SIZES.split_whitespace().map(String::from));
    arguments.extend("--measurements 2 --heldout 4 --warmup 5".split_whitespace().map(String::from));
    arguments
}

fn train(arguments: &[String], out: &Path, further: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
    command.arg("pretrain").args(arguments).arg("--out").arg(out).args(further);
    command.stderr(Stdio::null()).stdout(Stdio::null());
    command
}

fn steps_written(run: &Path) -> usize {
    std::fs::read_to_string(run.join("loss.tsv")).map_or(0, |text| text.lines().count().saturating_sub(1))
}

#[test]
fn a_run_that_is_killed_and_goes_on_is_the_same_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = material(folder.path());
    let (whole, killed): (PathBuf, PathBuf) = (folder.path().join("whole"), folder.path().join("killed"));
    let length = ["--tokens", "30720"];
    assert!(train(&arguments, &whole, &length).args(["--threads", "1"]).status().unwrap().success());
    assert_eq!(steps_written(&whole), 120);

    // Killed after some steps, wherever that is; then in the middle of what follows; then to the end.
    for at in [20, 60] {
        let mut child = train(&arguments, &killed, &length).args(["--keep", "0"]).spawn().unwrap();
        let begun = Instant::now();
        while steps_written(&killed) < at && begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let steps = steps_written(&killed);
        assert!((at..120).contains(&steps), "killed at step {steps}");
    }
    assert!(train(&arguments, &killed, &length).args(["--threads", "2"]).status().unwrap().success());
    for file in ["loss.tsv", "heldout.tsv", "checkpoint.bin"] {
        let read = |run: &Path| std::fs::read(run.join(file)).unwrap();
        assert!(read(&whole) == read(&killed), "{file} differs");
    }

    // Other settings are refused, and what is there stays.
    let before = std::fs::read(killed.join("checkpoint.bin")).unwrap();
    let refused = train(&arguments, &killed, &["--tokens", "99999"]).stderr(Stdio::piped()).output().unwrap();
    assert!(!refused.status.success());
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("steps was 120"), "{message}");
    assert_eq!(std::fs::read(killed.join("checkpoint.bin")).unwrap(), before);
}

#[test]
fn the_ablation_goes_on_where_it_was_and_writes_a_table_and_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    material(folder.path());
    let (vocabulary, out) = (folder.path().join("bytes.gguf"), folder.path().join("study"));
    let study = |tokens: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
        command.arg("ablate").arg("--corpus").arg(folder.path()).arg("--out").arg(&out);
        for name in ["--plain", "--hybrid", "--lots"] {
            command.arg(name).arg(&vocabulary);
        }
        command.args(["--seeds", "2", "--tokens", tokens, "--bytes", "3000"]).args(SIZES.split_whitespace());
        command.output().unwrap()
    };
    let first = study("2048");
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let table = String::from_utf8(first.stdout).unwrap();
    // Head, rule, nine variants.
    assert_eq!(table.lines().filter(|line| line.starts_with('|')).count(), 11, "{table}");
    // Both vocabularies are the same here, so these two have the same runs.
    let row =
        |name: &str| table.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap().to_owned();
    assert!(row("tokens").contains("| +0.0000 | +0.0000 .. +0.0000 |"), "{table}");
    assert!(!row("scopes-zero").contains("| +0.0000 | +0.0000 .."), "{table}");
    assert_eq!(std::fs::read_to_string(out.join("ablation.md")).unwrap(), table);
    assert!(std::fs::read_to_string(out.join("ablation.svg")).unwrap().matches("<circle").count() == 8);

    // One run is lost; it is made again, to the same numbers, and the others are kept.
    let kept = std::fs::metadata(out.join("baseline-1/costs.json")).unwrap().modified().unwrap();
    std::fs::remove_dir_all(out.join("scopes-2")).unwrap();
    let again = study("2048");
    assert_eq!(String::from_utf8(again.stdout).unwrap(), table);
    assert_eq!(std::fs::metadata(out.join("baseline-1/costs.json")).unwrap().modified().unwrap(), kept);
    assert!(!study("4096").status.success(), "another study does not go into this folder");
}
