//! Every architecture against numbers the engine did not make; `golden/README.md` says where they come from.

#![allow(clippy::print_stdout)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cchaha::code::Language;
use cchaha::{Device, KvTable, Model, ScoreRequest, Session, SessionOptions, WindowOptions, models, score};
use cchaha_gguf::Gguf;
use cchaha_kernels::{Isa, Oracle};
use cchaha_plan::{Batch, Limits, Runner};
use serde_json::Value;

/// The tiny models, with how far the oracle's ln p may be from the reference's. Both are f64 throughout, and sums
/// of at most a few hundred terms in another order differ by 1e-14. But a plan's constants are f32: where
/// `1 / sqrt(head_dim)` (qwen3) or `sqrt(n_embd)` (gemma3) is irrational, it is off by up to 2^-25 = 3e-8 of
/// itself, and with it every score (of size 10, in 2 and 7 layers), so ln p by up to some 1e-6.
const TINY: [(&str, f64); 11] = [
    ("gemma3", 1e-6),
    ("granite", 1e-12),
    ("llama", 1e-12),
    ("llama-rope-linear", 1e-12),
    ("llama-rope-llama3", 1e-12),
    ("llama-rope-yarn", 1e-12),
    ("qwen2", 1e-12),
    ("qwen3", 1e-6),
    ("qwen3moe", 1e-12),
    ("starcoder2", 1e-12),
    ("starcoder2-window", 1e-12),
];

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(file)
}

fn json(file: &str) -> Value {
    let text = std::fs::read_to_string(golden(file)).expect("a golden file");
    serde_json::from_str(&text).expect("valid JSON")
}

fn ids(list: &Value) -> Vec<u32> {
    list.as_array().expect("a list").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// Log-probabilities; the first token has none.
fn numbers(list: &Value) -> Vec<Option<f64>> {
    list.as_array().expect("a list").iter().map(Value::as_f64).collect()
}

fn cpu(exact: bool) -> SessionOptions {
    SessionOptions { device: Device::Cpu, threads: Some(2), exact, ..SessionOptions::default() }
}

fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = i;
        }
    }
    best as u32
}

fn go_on(_: cchaha::Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The prompt in one go, then the likeliest token, over and over.
fn greedy(model: &Arc<Model>, options: &SessionOptions, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut session = Session::new(model, options).expect("a session");
    session.set_prompt(prompt, &mut go_on).expect("the prompt fits");
    while session.tokens().len() < prompt.len() + count {
        let next = argmax(session.logits());
        session.feed(&[next], &mut go_on).expect("one more token fits");
    }
    session.tokens()[prompt.len()..].to_vec()
}

/// `ln p` of every token, the first `n_prompt` evaluated together and the others one at a time.
fn decode_logprobs(
    model: &Arc<Model>,
    options: &SessionOptions,
    tokens: &[u32],
    n_prompt: usize,
) -> Vec<Option<f64>> {
    let mut session = Session::new(model, options).expect("a session");
    session.set_prompt(&tokens[..n_prompt], &mut go_on).expect("the prompt fits");
    let mut logprobs = vec![None; n_prompt];
    for &token in &tokens[n_prompt..] {
        let logits: Vec<f64> = session.logits().iter().map(|&logit| f64::from(logit)).collect();
        logprobs.push(Some(log_softmax(&logits, token)));
        session.feed(&[token], &mut go_on).expect("one more token fits");
    }
    logprobs
}

fn prefill_logprobs(model: &Arc<Model>, options: &SessionOptions, tokens: &[u32]) -> Vec<Option<f64>> {
    let request = ScoreRequest::default();
    score(model, options, tokens, &request, &mut go_on).expect("scores").logprobs
}

fn log_softmax(logits: &[f64], token: u32) -> f64 {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|logit| (logit - max).exp()).sum();
    logits[token as usize] - max - sum.ln()
}

/// Absolute differences where both have a number.
fn differences(a: &[Option<f64>], b: &[Option<f64>]) -> Vec<f64> {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).filter_map(|(a, b)| Some(((*a)? - (*b)?).abs())).collect()
}

fn max(values: &[f64]) -> f64 {
    assert!(!values.is_empty() && values.iter().all(|value| value.is_finite()), "{values:?}");
    values.iter().copied().fold(0.0, f64::max)
}

fn mean(values: &[f64]) -> f64 {
    assert!(!values.is_empty() && values.iter().all(|value| value.is_finite()), "{values:?}");
    values.iter().sum::<f64>() / values.len() as f64
}

fn open(path: &Path) -> Arc<Model> {
    Arc::new(Model::open(path).unwrap_or_else(|error| panic!("{error}")))
}

/// All tokens in one batch, logits before they are rounded to f32.
fn oracle_logits(gguf: &Gguf, tokens: &[u32]) -> (Vec<f64>, usize) {
    let plan = Arc::new(models::build(gguf).expect("a plan"));
    let n = tokens.len();
    let limits = Limits { cells: n, batch: n, logits: n };
    let mut runner = Oracle::default().runner(plan.clone(), limits).expect("a runner");
    let mut kv = KvTable::new(n);
    let sequence = kv.add();
    kv.append(sequence, n).expect("room");
    let all: Vec<u32> = (0..n as u32).collect();
    let positions: Vec<i32> = (0..n as i32).collect();
    let cells: Vec<u32> = (0..n).filter_map(|position| kv.cell(sequence, position)).collect();
    let batch = Batch {
        tokens,
        positions: &positions,
        sequence: &vec![0; n],
        cell: &cells,
        logits: &all,
        coarse: &[],
        sequences: &[kv.pages(sequence)],
        cells: kv.cells(),
    };
    runner.run(&batch).expect("logits");
    (runner.logits_f64().to_vec(), plan.vocab)
}

#[test]
fn the_oracle_computes_what_the_reference_does() {
    for (name, tolerance) in TINY {
        let expected = json(&format!("{name}.json"));
        let tokens = ids(&expected["tokens"]);
        let gguf = Gguf::open(&golden(&format!("{name}.gguf"))).expect("a model");
        let (logits, vocab) = oracle_logits(&gguf, &tokens);
        let mut logprobs = vec![None];
        for (row, &token) in logits.chunks_exact(vocab).zip(&tokens[1..]) {
            logprobs.push(Some(log_softmax(row, token)));
        }
        let worst = max(&differences(&logprobs, &numbers(&expected["logprobs"])));
        println!("{name}: oracle {worst:.1e}");
        assert!(worst <= tolerance, "{name}: ln p is off by {worst:e}");

        let model = open(&golden(&format!("{name}.gguf")));
        let options = SessionOptions { device: Device::Oracle, ..SessionOptions::default() };
        let expected_greedy = ids(&expected["greedy"]);
        assert_eq!(greedy(&model, &options, &tokens, expected_greedy.len()), expected_greedy, "{name}");
    }
}

#[test]
fn the_cpu_computes_what_the_reference_does() {
    let llama_cpp = json("tiny.json");
    for (name, _) in TINY {
        let expected = json(&format!("{name}.json"));
        let (tokens, continuation) = (ids(&expected["tokens"]), ids(&expected["greedy"]));
        let model = open(&golden(&format!("{name}.gguf")));
        let all = [&tokens[..], &continuation].concat();
        let oracle = SessionOptions { device: Device::Oracle, ..SessionOptions::default() };
        let truth = prefill_logprobs(&model, &oracle, &all);

        let worst = max(&differences(&prefill_logprobs(&model, &cpu(true), &all), &truth));
        println!("{name}: exact {worst:.1e}");
        assert!(worst <= 1e-4, "{name}: ln p on the float path is off by {worst:e}");
        let default = differences(&decode_logprobs(&model, &cpu(false), &all, tokens.len()), &truth);
        let default = mean(&default);
        // llama.cpp knows no window in starcoder2; without one the model is the same.
        let yardstick = &llama_cpp[name.trim_end_matches("-window")]["llama_cpp_mean_abs_delta"];
        let yardstick = yardstick.as_f64().expect("a number");
        println!("{name}: default {default:.1e}, llama.cpp {yardstick:.1e}");
        assert!(
            default <= yardstick,
            "{name}: mean {default:e} on the default path, llama.cpp {yardstick:e}"
        );

        for options in [cpu(true), cpu(false)] {
            assert_eq!(greedy(&model, &options, &tokens, continuation.len()), continuation, "{name}");
        }
    }
}

/// The model reads a program as it computes: scope positions and pins are the reference's, which parsed the whole.
#[test]
fn our_own_architecture_computes_what_the_reference_does() {
    let golden_values = json("cchaha.json");
    let (tokens, expected) = (ids(&golden_values["tokens"]), numbers(&golden_values["logprobs"]));
    let model = open(&golden("cchaha.gguf"));
    let python = |options: SessionOptions| {
        let language = Language::named("python").expect("a language");
        SessionOptions { window: WindowOptions { language, ..options.window }, ..options }
    };
    let oracle = python(SessionOptions { device: Device::Oracle, ..SessionOptions::default() });
    // The oracle hands its logits out as f32: 6e-8 of logits up to 16, beside the f32 constants of TINY.
    for (path, options, tolerance) in [("oracle", oracle, 3e-6), ("exact", python(cpu(true)), 1e-4)] {
        let worst = max(&differences(&prefill_logprobs(&model, &options, &tokens), &expected));
        println!("cchaha: {path} {worst:.1e}");
        assert!(worst <= tolerance, "cchaha: ln p of the {path} path is off by {worst:e}");
    }
    let found = prefill_logprobs(&model, &python(cpu(false)), &tokens);
    let one_by_one = decode_logprobs(&model, &python(cpu(false)), &tokens, 100);
    // A run does not depend on how its text is cut, so pins are those of the same positions.
    assert!(max(&differences(&found[100..], &one_by_one[100..])) <= 1e-5);
    let off = mean(&differences(&found, &expected));
    println!("cchaha: default {off:.1e}");
    assert!(off <= 2e-3, "cchaha: mean {off:e} on the default path");
    // Read as plain text the program has other scopes and no pins.
    let plain = mean(&differences(&prefill_logprobs(&model, &cpu(true), &tokens), &expected));
    assert!(plain > 0.05, "places seem to change nothing: {plain:e}");
}

#[test]
fn stories_equal_those_of_llama_cpp() {
    let model = open(&golden("stories260K-f32.gguf"));
    for case in json("stories260K.json")["cases"].as_array().expect("cases") {
        let (tokens, n_prompt) = (ids(&case["tokens"]), case["n_prompt"].as_u64().expect("a count") as usize);
        let text = case["prompt"].as_str().expect("a text");
        assert_eq!(
            model.tokenizer().encode_prompt(text, cchaha::text::Special::Plain),
            tokens[..n_prompt],
            "{text:?}"
        );
        assert!(tokens.len() >= n_prompt + 240);
        for options in [cpu(true), cpu(false)] {
            let found = greedy(&model, &options, &tokens[..n_prompt], tokens.len() - n_prompt);
            assert_eq!(found, tokens[n_prompt..], "{text:?}, exact {}", options.exact);
        }
        let exact = prefill_logprobs(&model, &cpu(true), &tokens);
        let worst = max(&differences(&exact, &numbers(&case["llama_cpp_f32_logprobs"])));
        println!("stories260K {text:?}: ln p within {worst:.1e} of llama.cpp's with f32 keys and values");
        assert!(worst <= 1e-3, "{text:?}: ln p is off by {worst:e}");
        // On F32 weights both round keys and values to f16 and nothing else, so that the means differ by chance.
        check_against_exact("stories260K", &model, case, 1.1);
    }
}

/// Opens a real model, or says that it is not there, which is an error in CI.
fn real(file: &str) -> Option<Arc<Model>> {
    let root = std::env::var_os("CCHAHA_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-data"), PathBuf::from);
    let path = root.join("models").join(file);
    if path.is_file() {
        return Some(open(&path));
    }
    let problem = format!("{} is missing; tests/run.sh fetches it", path.display());
    assert!(std::env::var_os("CI").is_none(), "{problem}");
    println!("skipped: {problem}");
    None
}

/// The float path against exact arithmetic, the default path against how far llama.cpp is from it.
fn check_against_exact(name: &str, model: &Arc<Model>, case: &Value, slack: f64) {
    let (tokens, n_prompt) = (ids(&case["tokens"]), case["n_prompt"].as_u64().expect("a count") as usize);
    let truth = numbers(&case["exact_logprobs"]);
    let request = ScoreRequest { top: 1, ..ScoreRequest::default() };
    let scores = score(model, &cpu(true), &tokens, &request, &mut go_on).expect("scores");
    let exact = differences(&scores.logprobs, &truth);
    let worst = max(&exact);
    // The tokens are llama.cpp's choices; some are not the likeliest in exact arithmetic.
    let flips = (n_prompt..tokens.len()).filter(|&i| scores.top[i][0].0 != tokens[i]).count();
    assert_eq!(flips as u64, case["exact_greedy_flips"].as_u64().expect("a count"), "{name}");
    let generated_from = n_prompt - 1;
    for (path, found, yardstick) in [
        ("decode", decode_logprobs(model, &cpu(false), &tokens, n_prompt), "llama_cpp_mean_abs_delta"),
        ("prefill", prefill_logprobs(model, &cpu(false), &tokens), "llama_cpp_prefill_mean_abs_delta"),
    ] {
        let found = differences(&found[n_prompt..], &truth[n_prompt..]);
        assert_eq!(found.len(), exact.len() - generated_from);
        let (found, yardstick) = (mean(&found), case[yardstick].as_f64().expect("a number"));
        println!("{name}: exact {worst:.1e}; default {path} mean {found:.5}, llama.cpp {yardstick:.5}");
        assert!(found <= slack * yardstick, "{name}: mean {found:e} in {path}, llama.cpp {yardstick:e}");
    }
    assert!(worst <= 1e-4, "{name}: ln p on the float path is off by {worst:e}");
}

/// Tokens of a long prompt are read in 8 bits where kernels gain by it, each in its way; `share` of llama.cpp's error behind the same tokens.
fn check_long_prompt(name: &str, model: &Arc<Model>, share: f64) {
    let case = &json("long.json")[name];
    let (tokens, n_prompt) = (ids(&case["tokens"]), case["n_prompt"].as_u64().expect("a count") as usize);
    let yardstick = case["llama_cpp_mean_abs_delta"].as_f64().expect("a number");
    for isa in Isa::ALL.into_iter().filter(|isa| *isa != Isa::Generic && isa.available()) {
        let found = decode_logprobs(
            model,
            &SessionOptions { isa: Some(isa.name().into()), ..cpu(false) },
            &tokens,
            n_prompt,
        );
        let found = mean(&differences(&found[n_prompt..], &numbers(&case["exact_logprobs"])));
        println!("{name}: behind {n_prompt} tokens mean {found:.5} on {isa}, llama.cpp {yardstick:.5}");
        assert!(
            found <= share * yardstick,
            "{name}: mean {found:e} behind {n_prompt} tokens on {isa}, llama.cpp {yardstick:e}"
        );
    }
}

/// Packing goes on while tokens are written, ends, and is then what a prompt reads as well.
fn check_packing(name: &str, model: &Arc<Model>, tokens: &[u32]) {
    let all = |repack| {
        let mut session = Session::new(model, &SessionOptions { repack, ..cpu(false) }).expect("a session");
        let mut logits = Vec::new();
        for token in &tokens[..40] {
            session.feed(&[*token], &mut go_on).expect("one more token fits");
            logits.extend(session.logits().iter().map(|logit| logit.to_bits()));
        }
        session.set_prompt(&tokens[1..81], &mut go_on).expect("the prompt fits");
        logits.extend(session.logits().iter().map(|logit| logit.to_bits()));
        logits
    };
    assert!(all(true) == all(false), "{name}: packed weights change logits");
}

#[test]
fn smollm2_is_closer_to_exact_than_llama_cpp() {
    if let Some(model) = real("SmolLM2-135M-Instruct.Q4_1.gguf") {
        check_against_exact("SmolLM2", &model, &json("smollm2.json"), 1.0);
        check_long_prompt("smollm2", &model, 0.5);
        check_packing("SmolLM2", &model, &ids(&json("long.json")["smollm2"]["tokens"]));
    }
}

#[test]
fn qwen_coder_is_closer_to_exact_than_llama_cpp() {
    if let Some(model) = real("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf") {
        check_against_exact("Qwen2.5-Coder", &model, &json("qwen2.5-coder-0.5b.json"), 1.0);
        check_long_prompt("qwen2.5-coder-0.5b", &model, 0.5);
        check_packing("Qwen2.5-Coder", &model, &ids(&json("long.json")["qwen2.5-coder-0.5b"]["tokens"]));
    }
}

#[test]
fn gemma3_is_closer_to_exact_than_llama_cpp() {
    if let Some(model) = real("gemma-3-270m-q4_k_m.gguf") {
        check_against_exact("Gemma 3", &model, &json("gemma3-270m.json"), 1.0);
        check_long_prompt("gemma3-270m", &model, 0.5);
        check_packing("Gemma 3", &model, &ids(&json("long.json")["gemma3-270m"]["tokens"]));
    }
}
