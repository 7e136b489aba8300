//! What is exported is what was trained: the engine's losses are the network's.

mod vocabulary;

use std::path::Path;
use std::sync::Arc;

use cchaha::kernels::Pool;
use cchaha::plan::Format;
use cchaha::{Device, Model, SessionOptions};
use cchaha_train::corpus::Document;
use cchaha_train::evaluate::{Cost, of_checkpoint, of_model};
use cchaha_train::export::export;
use cchaha_train::import::import;
use cchaha_train::model::{Config, Kind, Layout};
use cchaha_train::optim::{Hyper, Schedule, Shape};
use cchaha_train::run::{Checkpoint, Settings, initial_weights};

fn config() -> Config {
    Config {
        vocab: 260,
        width: 64,
        layers: 4,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        hidden: 96,
        context: 1024,
        window: 192,
        pattern: 4,
        rope_base: 10000.0,
        scope_split: 4,
        sigma: 3.0,
        pins: true,
    }
}

/// Random weights so large that heads attend to few tokens, which makes what they see matter.
fn checkpoint(config: Config) -> Checkpoint {
    let layout = Layout::new(&config);
    let mut weights = initial_weights(&config, 5);
    for tensor in &layout.tensors {
        let factor = match tensor.kind {
            Kind::Embedding => 8.0,
            Kind::Matrix => 3.0,
            Kind::Norm => 1.5,
        };
        weights[tensor.range.clone()].iter_mut().for_each(|w| *w *= factor);
    }
    Checkpoint::new(
        Settings {
            stage: "pretrain".into(),
            config,
            hyper: Hyper::default(),
            schedule: Schedule { shape: Shape::Wsd, warmup: 0, steps: 1, decay: 0.5 },
            batch: 1,
            micro: 1,
            seed: 1,
            tokenizer: 0,
        },
        weights,
    )
}

fn documents() -> Vec<Document> {
    let rust = include_str!("../src/ops/heads.rs");
    let python = "import os\nfrom sys import argv\n\n\nclass Tree:\n    def __init__(self, left, right):\n        \
                  self.left = left\n        self.right = right\n\n    def depth(self):\n        \
                  return 1 + max(self.left.depth(), self.right.depth())\n\n\ndef main():\n    print(Tree(None, None))\n";
    let document = |language: &str, text: &str| Document {
        language: language.into(),
        package: "p".into(),
        path: "f".into(),
        text: text.into(),
    };
    // No longer than the context, as the engine cuts what is, and with headers shorter than the window: training knows from a header's
    // first token on that it is one, the engine when its body opens.
    vec![
        document("rust", &rust[..1000]),
        document("python", python),
        document("markdown", "# Title\n\nSome words.\n"),
    ]
}

#[test]
fn the_engine_gets_the_same_losses_from_the_exported_file() {
    let folder = tempfile::tempdir().unwrap();
    let (vocabulary, file) = (folder.path().join("bytes.gguf"), folder.path().join("model.gguf"));
    vocabulary::bytes(&vocabulary);
    let checkpoint = checkpoint(config());
    let (pool, documents) = (Pool::new(2).unwrap(), documents());
    let on_engine = |format: Format| {
        export(&checkpoint, &vocabulary, Vec::new(), format, &file).unwrap();
        let model = Arc::new(Model::open(&file).unwrap());
        let options = SessionOptions {
            device: Device::Cpu,
            threads: Some(2),
            exact: true,
            ..SessionOptions::default()
        };
        of_model(&model, &options, &documents, 1024, &mut |_| std::ops::ControlFlow::Continue(())).unwrap()
    };
    let model = {
        export(&checkpoint, &vocabulary, Vec::new(), Format::F32, &file).unwrap();
        Model::open(&file).unwrap()
    };
    let in_training = |checkpoint: &Checkpoint| {
        let seen = &mut |_| std::ops::ControlFlow::Continue(());
        of_checkpoint(&pool, checkpoint, model.tokenizer(), &documents, &|_| {}, seen).unwrap()
    };
    let trained = in_training(&checkpoint);
    let exact = on_engine(Format::F32);
    let off = |a: &[Cost], b: &[Cost]| {
        let errors = a.iter().zip(b).map(|(a, b)| (a.bits - b.bits).abs() / a.bits);
        errors.fold(0.0, f64::max)
    };
    for ((document, trained), exact) in documents.iter().zip(&trained).zip(&exact) {
        assert_eq!(trained.tokens, exact.tokens, "{}", document.language);
        assert_eq!(trained.tokens, document.text.len(), "a token per byte");
    }
    assert!(off(&trained, &exact) < 1e-5, "{trained:?} {exact:?}");
    assert!(off(&trained, &on_engine(Format::Q8_0)) < 0.01);

    // Every choice of the configuration shows in the losses, so the agreement means something.
    let other = |change: fn(&mut Config)| {
        let mut other = checkpoint.clone();
        change(&mut other.settings.config);
        off(&trained, &in_training(&other))
    };
    type Change = fn(&mut Config);
    let changes: [(&str, Change); 5] = [
        ("pins", |config| config.pins = false),
        ("sigma", |config| config.sigma = 0.0),
        ("split", |config| config.scope_split = 8),
        ("window", |config| config.window = 96),
        ("pattern", |config| config.pattern = 0),
    ];
    for (name, change) in changes {
        let off = other(change);
        assert!(off > 1e-4, "{name} changes losses by {off} only");
    }
}

#[test]
fn training_goes_on_from_an_exported_file() {
    let folder = tempfile::tempdir().unwrap();
    let (vocabulary, file) = (folder.path().join("bytes.gguf"), folder.path().join("model.gguf"));
    vocabulary::bytes(&vocabulary);
    let checkpoint = checkpoint(config());
    let written = |format: Format| {
        export(&checkpoint, &vocabulary, Vec::new(), format, &file).unwrap();
        import(&file, &vocabulary).unwrap()
    };
    let (config, weights) = written(Format::F32);
    assert_eq!(config, checkpoint.settings.config);
    assert!(weights == checkpoint.weights, "F32 loses nothing");
    let (_, rounded) = written(Format::Q8_0);
    let largest = weights.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
    assert!(
        weights.iter().zip(&rounded).all(|(a, b)| (a - b).abs() <= largest / 250.0) && rounded != weights
    );

    // A model's own file serves as its vocabulary; another model's does not, and neither does a file that is no such model.
    assert!(import(&file, &file).is_ok());
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let refused = |path: &Path, vocabulary: &Path| import(path, vocabulary).unwrap_err().message().to_owned();
    assert!(refused(&file, &golden.join("llama.gguf")).contains("another vocabulary"));
    assert!(refused(&golden.join("llama.gguf"), &vocabulary).contains("its architecture is llama"));
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 40]).unwrap();
    assert!(refused(&file, &vocabulary).contains("model.gguf"));
    assert!(refused(&vocabulary, &vocabulary).contains("cchaha.block_count"));
}
