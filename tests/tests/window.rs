//! Code windows: every policy equals the oracle under the same rule, does not depend on how a text is cut into batches,
//! and `full` or a budget nobody exceeds changes no bit.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use cchaha::code::Language;
use cchaha::gguf::{self, Gguf, Metadata, TensorSpec};
use cchaha::text::Special;
use cchaha::{
    Device, Fate, Model, POLICIES, Policy, RopeKind, RopeOptions, ScoreRequest, Session, SessionOptions,
    WindowOptions, score,
};

const SOURCE: &str = "import os\nfrom sys import path\n\n\nclass Shop:\n    def __init__(self, name):\n        self.name = name\n\n    \
    def open(self):\n        for door in self.doors:\n            door.open(self.name)\n        return True\n\n\ndef close(shop):\n    \
    for door in shop.doors:\n        door.close()\n\n\ndef main():\n    shop = Shop('x')\n    if shop.open():\n        close(shop)\n";

fn golden(name: &str) -> Arc<Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    Arc::new(Model::open(&path).unwrap())
}

fn model() -> Arc<Model> {
    golden("stories260K-f32.gguf")
}

/// The same weights under other keys.
fn with_metadata(model: &Model, metadata: &Metadata) -> Arc<Model> {
    let tensors = model.gguf().tensors();
    let specs: Vec<TensorSpec> = tensors
        .iter()
        .map(|tensor| TensorSpec { name: tensor.name.clone(), format: tensor.format, dims: tensor.dims })
        .collect();
    let mut file = Vec::new();
    gguf::write_to("model", &mut file, metadata, &specs, |i, out| out.write_all(tensors[i].data.as_slice()))
        .unwrap();
    Arc::new(Model::from_gguf(Gguf::from_bytes("model", file.into()).unwrap()).unwrap())
}

fn prompt(model: &Model) -> Vec<u32> {
    let tokens = model.tokenizer().encode_prompt(SOURCE, Special::Plain);
    assert!(tokens.len() > 200, "{} tokens", tokens.len());
    tokens
}

fn options(policy: &'static Policy, budget: Option<usize>) -> SessionOptions {
    let language = Language::named("python").unwrap();
    SessionOptions {
        device: Device::Cpu,
        threads: Some(2),
        window: WindowOptions { policy, budget, language },
        ..SessionOptions::default()
    }
}

fn scores(model: &Arc<Model>, options: &SessionOptions, tokens: &[u32]) -> Vec<f64> {
    let scores =
        score(model, options, tokens, &ScoreRequest::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    scores.logprobs.into_iter().flatten().collect()
}

fn feed(session: &mut Session, tokens: &[u32]) {
    session.feed(tokens, &mut |_| ControlFlow::Continue(())).unwrap();
}

#[test]
fn every_policy_equals_the_oracle() {
    for name in ["stories260K-f32.gguf", "gemma3.gguf", "starcoder2-window.gguf"] {
        let model = golden(name);
        let mut tokens = prompt(&model);
        tokens.truncate(180.min(model.context()));
        for policy in &POLICIES {
            let exact = SessionOptions { exact: true, ..options(policy, Some(64)) };
            let oracle = SessionOptions { device: Device::Oracle, ..exact.clone() };
            let (a, b) = (scores(&model, &exact, &tokens), scores(&model, &oracle, &tokens));
            // f32 arithmetic over a few small layers; a page chosen differently would show as a jump far above.
            for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                assert!(
                    (a - b).abs() < 2e-4 * (1.0 + b.abs()),
                    "{name}, {}: token {i}: {a} and {b}",
                    policy.name
                );
            }
        }
    }
}

#[test]
fn full_and_unlimited_budgets_change_no_bit() {
    let model = model();
    let tokens = prompt(&model);
    let plain = scores(&model, &options(&POLICIES[0], None), &tokens);
    for policy in &POLICIES {
        for budget in [None, Some(tokens.len()), Some(1 << 20)] {
            assert_eq!(
                scores(&model, &options(policy, budget), &tokens),
                plain,
                "{} {budget:?}",
                policy.name
            );
        }
        let tight = scores(&model, &options(policy, Some(64)), &tokens);
        assert_eq!(tight == plain, policy.name == "full", "{}", policy.name);
    }
}

#[test]
fn results_do_not_depend_on_batches() {
    let model = model();
    let tokens = prompt(&model);
    for policy in &POLICIES {
        let session = |batch| {
            Session::new(
                &model,
                &SessionOptions { batch, ctx: Some(400), response: None, ..options(policy, Some(80)) },
            )
            .unwrap()
        };
        let mut whole = session(512);
        feed(&mut whole, &tokens);
        for batch in [1, 7, 33] {
            let mut cut = session(batch);
            feed(&mut cut, &tokens);
            assert_eq!(cut.logits(), whole.logits(), "{} in batches of {batch}", policy.name);
        }
        let mut single = session(64);
        for token in &tokens {
            feed(&mut single, &[*token]);
        }
        assert_eq!(single.logits(), whole.logits(), "{} token by token", policy.name);
        assert_eq!(single.seen(), whole.seen());
    }
}

#[test]
fn a_cut_and_what_follows_equal_a_fresh_start() {
    let model = model();
    let tokens = prompt(&model);
    for policy in POLICIES.iter().filter(|policy| !policy.name.starts_with("fold")) {
        let options = SessionOptions { ctx: Some(400), ..options(policy, Some(64)) };
        let mut fresh = Session::new(&model, &options).unwrap();
        feed(&mut fresh, &tokens);
        let mut cut = Session::new(&model, &options).unwrap();
        feed(&mut cut, &tokens);
        feed(&mut cut, &tokens[..50]);
        cut.truncate(101);
        feed(&mut cut, &tokens[101..]);
        assert_eq!(cut.logits(), fresh.logits(), "{}", policy.name);
    }
}

#[test]
fn fold_keeps_the_budget() {
    let model = model();
    let tokens = prompt(&model);
    let fold = Policy::named("fold").unwrap();
    let mut session =
        Session::new(&model, &SessionOptions { ctx: Some(500), ..options(fold, Some(96)) }).unwrap();
    let full =
        Session::new(&model, &SessionOptions { ctx: Some(500), ..options(&POLICIES[0], None) }).unwrap();
    assert!(
        session.footprint().kv_bytes * 5 < full.footprint().kv_bytes + 1,
        "KV memory is that of the budget"
    );
    feed(&mut session, &tokens);
    let seen = session.seen();
    assert_eq!(seen.fates.len(), tokens.len());
    let whole = seen.count(&[Fate::Seen]);
    assert!((32..=48).contains(&whole), "{whole} tokens are whole");
    assert!(seen.fates[tokens.len() - 32..].iter().all(|&fate| fate == Fate::Seen), "the last ones stay");
    // It goes on past the budget for as long as the context lasts.
    feed(&mut session, &tokens[..200]);
    assert!(session.logits().iter().all(|x| x.is_finite()));
}

#[test]
fn pins_are_headers_and_imports() {
    let model = model();
    let tokens = prompt(&model);
    let policy = Policy::named("structure-headers").unwrap();
    let mut session =
        Session::new(&model, &SessionOptions { ctx: Some(400), ..options(policy, Some(128)) }).unwrap();
    feed(&mut session, &tokens);
    let seen = session.seen();
    let lines: Vec<&str> = SOURCE.lines().collect();
    let mut pinned: Vec<&str> = Vec::new();
    for (line, _) in seen.lines.iter().zip(&seen.fates).filter(|(_, fate)| **fate == Fate::Pinned) {
        pinned.push(lines[*line as usize].trim());
    }
    pinned.dedup();
    assert!(!pinned.is_empty());
    assert!(
        pinned
            .iter()
            .all(|line| ["import", "from", "class", "def"].iter().any(|word| line.starts_with(word))),
        "{pinned:?}"
    );
}

#[test]
fn budgets_that_cannot_be_are_refused() {
    let model = model();
    let error = Session::new(&model, &options(&POLICIES[4], Some(63))).err().unwrap();
    assert!(error.to_string().contains("64 or more"), "{error}");
}

#[test]
fn choices_of_pages_are_counted_and_change_nothing() {
    let model = model();
    let tokens = prompt(&model);
    let pages = POLICIES.iter().find(|policy| policy.name == "pages").unwrap();
    let written = |count_chosen| {
        let options = SessionOptions { count_chosen, ..options(pages, Some(64)) };
        let mut session = Session::new(&model, &options).unwrap();
        feed(&mut session, &tokens);
        (session.seen(), session.logits().to_vec(), session)
    };
    let (silent, want, _) = written(false);
    assert!(silent.chosen.is_empty());
    let (seen, got, mut session) = written(true);
    assert_eq!(got, want);
    assert_eq!(seen.chosen.len(), tokens.len());
    // Half of 64 cells are two pages of 16: what each query of each layer and KV head chooses, once so many are outside its window.
    let kv = &model.plan().kv;
    let most = 2 * tokens.len() * kv.iter().map(|kv| kv.n_kv_heads).sum::<usize>();
    let all: u64 = seen.chosen.iter().step_by(16).sum();
    assert!((most / 2..=most).contains(&(all as usize)), "{all} choices, at most {most}");
    assert!(seen.chosen[tokens.len() - 16..].iter().all(|&times| times == 0), "the window is not chosen");
    session.truncate(20);
    assert!(session.seen().chosen.iter().all(|&times| times == 0), "another text has counts of its own");
}

#[test]
fn rotary_choices_go_past_the_trained_length() {
    let model = model();
    let tokens = prompt(&model);
    let trained = model.context();
    let with = |rope: Option<RopeOptions>, ctx| SessionOptions {
        rope,
        ctx: Some(ctx),
        ..options(&POLICIES[0], None)
    };
    let plain = scores(&model, &with(None, trained), &tokens);
    // Inside the trained length these rules change nothing.
    for kind in [RopeKind::Linear, RopeKind::LinearScale, RopeKind::Yarn] {
        assert_eq!(scores(&model, &with(Some(RopeOptions::new(kind)), trained), &tokens), plain);
    }
    let nothing_scoped = RopeOptions { split: Some(4), ..RopeOptions::new(RopeKind::Scope) };
    let scoped = RopeOptions { split: Some(2), sigma: Some(3.0), ..nothing_scoped };
    assert_eq!(scores(&model, &with(Some(nothing_scoped), trained), &tokens), plain);
    assert_ne!(scores(&model, &with(Some(scoped), trained), &tokens), plain);
    // What the file says counts where nothing else is given, and our own architecture turns with scopes already.
    let saying = |split: u32, sigma: f32| {
        let mut metadata = model.gguf().metadata().clone();
        metadata.set("cchaha.rope.scope_split", split).set("cchaha.rope.sigma", sigma);
        with_metadata(&model, &metadata)
    };
    let by_file = with(Some(RopeOptions::new(RopeKind::Scope)), trained);
    assert_eq!(
        scores(&saying(2, 3.0), &by_file, &tokens),
        scores(&model, &with(Some(scoped), trained), &tokens)
    );
    assert_ne!(scores(&saying(2, 4.0), &by_file, &tokens), scores(&saying(2, 3.0), &by_file, &tokens));
    let own = golden("cchaha.gguf");
    let of_own = |rope| scores(&own, &with(rope, own.context()), &prompt(&own)[..200]);
    assert_eq!(of_own(Some(RopeOptions::new(RopeKind::Scope))), of_own(None));
    assert!(Session::new(&model, &with(None, 2 * trained)).is_err());
    for (_, kind) in cchaha::ROPES {
        let mut session = Session::new(&model, &with(Some(RopeOptions::new(kind)), 2 * trained)).unwrap();
        while session.tokens().len() < trained + 40 {
            let n = tokens.len().min(2 * trained - session.tokens().len());
            feed(&mut session, &tokens[..n]);
        }
        assert!(session.logits().iter().all(|x| x.is_finite()));
    }
    // The oracle agrees on two axes too.
    let exact = SessionOptions { exact: true, ..with(Some(scoped), trained) };
    let oracle = SessionOptions { device: Device::Oracle, ..exact.clone() };
    let (a, b) = (scores(&model, &exact, &tokens[..120]), scores(&model, &oracle, &tokens[..120]));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 2e-4 * (1.0 + b.abs())));
}
