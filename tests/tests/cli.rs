//! `cchaha-run` as its users meet it: results on stdout, one clear sentence and the right exit code for every
//! wrong input.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::OnceLock;

use assert_cmd::Command;
use predicates::prelude::{PredicateBooleanExt, predicate};
use predicates::str::{contains, is_empty};
use serde_json::Value;
use tempfile::TempDir;

/// The binary, built once in the profile of this test: Cargo builds no binaries of other packages for a test.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().expect("this test has a path");
        let profile_dir = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/test");
        let target_dir = profile_dir.parent().expect("target/PROFILE");
        let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
            Some("debug") => "dev",
            Some(profile) => profile,
            None => panic!("no profile in {}", profile_dir.display()),
        };
        let status = std::process::Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "cchaha-run", "--profile", profile, "--target-dir"])
            .arg(target_dir)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo runs");
        assert!(status.success(), "cchaha-run does not build");
        profile_dir.join(format!("cchaha-run{}", std::env::consts::EXE_SUFFIX))
    })
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// stories260K: a real, tiny model with a context of 512 tokens.
fn stories() -> PathBuf {
    golden("stories260K-f32.gguf")
}

/// The program with an environment that sets none of its variables, and nothing on stdin.
fn command() -> std::process::Command {
    let mut command = std::process::Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CCHAHA_ARG_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn run<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = command();
    command.args(args);
    Command::from_std(command)
}

/// `SUBCOMMAND -m stories260K` and more arguments, split at spaces.
fn stories_run(subcommand: &str, rest: &str) -> Command {
    let mut command = run([subcommand, "-m"]);
    command.arg(stories()).args(rest.split_whitespace());
    command
}

/// The one JSON value a command prints.
fn json(command: &mut Command) -> Value {
    let output = command.assert().success();
    serde_json::from_slice(&output.get_output().stdout).expect("one JSON value on stdout")
}

fn stdout(command: &mut Command) -> String {
    String::from_utf8(command.assert().success().get_output().stdout.clone()).expect("UTF-8")
}

/// Asserts the exit code, an empty stdout and one clear sentence on stderr that holds all `words`.
fn fails(command: &mut Command, code: i32, words: &[&str]) {
    let assert =
        command.assert().code(code).stdout(is_empty()).stderr(predicate::str::starts_with("error: "));
    let stderr = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in: {stderr}");
    }
    for debug in ["Error {", "Err(", "Some(", "kind:", "panicked", "ErrorKind"] {
        assert!(!stderr.contains(debug), "Rust's debug form in: {stderr}");
    }
}

// The model file.

#[test]
fn without_a_model_it_says_how_to_get_one() {
    for subcommand in ["complete", "chat", "fim", "tokenize", "score", "inspect", "plan", "bench"] {
        let args: &[&str] = match subcommand {
            "fim" => &["fim", "--prefix-file", "Cargo.toml", "--suffix-file", "Cargo.toml"],
            _ => &[subcommand],
        };
        let mut command = run(args);
        fails(&mut command, 2, &["no model", "-m", "curl", "https://huggingface.co/", "CCHAHA_ARG_MODEL"]);
    }
}

#[test]
fn unusable_model_files() {
    let dir = TempDir::new().expect("a folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).expect("a file");
        path
    };
    let whole = fs::read(stories()).expect("the model");
    let patched = |from: &[u8], to: &[u8]| {
        let at = whole.windows(from.len()).position(|window| window == from).expect("there to patch");
        let mut bytes = whole.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    // A tensor's name, number of dimensions, dimensions, type: the type is 24 bytes behind the name of a matrix.
    let name = b"token_embd.weight";
    let mut typed = name.to_vec();
    let at = whole.windows(name.len()).position(|window| window == name).expect("the tensor");
    typed.extend_from_slice(&whole[at + name.len()..at + name.len() + 20]);
    typed.extend_from_slice(&9u32.to_le_bytes());
    let cases: [(PathBuf, &[&str]); 7] = [
        (dir.path().join("absent.gguf"), &["absent.gguf", "no such file"]),
        (dir.path().to_path_buf(), &["is a directory"]),
        (write("text.gguf", b"version https://git-lfs.github.com/spec/v1\n"), &["is not a GGUF file"]),
        (write("empty.gguf", b""), &["is empty", "download it again"]),
        (write("cut.gguf", &whole[..whole.len() / 2]), &["cut short", "download it again"]),
        (
            write("architecture.gguf", &patched(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0bloom")),
            &["bloom"],
        ),
        (write("quant.gguf", &patched(name, &typed)), &["token_embd.weight", "not supported"]),
    ];
    for (path, words) in cases {
        for subcommand in ["complete", "score"] {
            fails(run([subcommand, "-m"]).arg(&path).write_stdin("x"), 3, words);
        }
        for subcommand in ["tokenize", "plan", "bench"] {
            fails(run([subcommand, "-m"]).arg(&path).write_stdin("x"), 3, words);
        }
    }
}

#[test]
fn a_model_of_another_architecture_can_be_inspected() {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("bloom.gguf");
    let mut bytes = fs::read(stories()).expect("the model");
    let at = bytes.windows(5).position(|window| window == b"llama").expect("the architecture");
    bytes[at..at + 5].copy_from_slice(b"bloom");
    fs::write(&path, bytes).expect("a file");
    let shown = stdout(run(["inspect"]).arg(&path));
    assert!(shown.contains("bloom") && shown.contains("token_embd.weight"));
}

// Flags and input.

#[test]
fn flags_out_of_range() {
    for (flags, words) in [
        ("-n 0", ["'0'", "1 or more"]),
        ("-n -1", ["'-1'", "1 or more"]),
        ("-t 0", ["--threads", "1 or more"]),
        ("-t -2", ["--threads", "1 or more"]),
        ("-c 0", ["--ctx", "1 or more"]),
        ("-c -5", ["--ctx", "1 or more"]),
        ("-b 0", ["--batch-size", "1 or more"]),
        ("-c 100000", ["100000", "512"]),
        ("-s -1", ["--seed", "0 or more"]),
        ("--temp -1", ["--temp", "0 or more"]),
        ("--top-k -1", ["--top-k", "0 or more"]),
        ("--top-p 1.5", ["--top-p", "from 0 to 1"]),
        ("--min-p nan", ["--min-p", "from 0 to 1"]),
        ("--typical -0.5", ["--typical", "from 0 to 1"]),
        ("--repeat-penalty 0", ["--repeat-penalty", "above 0"]),
        ("--repeat-last-n -2", ["--repeat-last-n", "-1"]),
        ("--frequency-penalty inf", ["--frequency-penalty", "a number"]),
        ("--logit-bias 5", ["--logit-bias", "198+2.5"]),
        ("--logit-bias 100000+1", ["100000", "512"]),
        ("--device tpu", ["'tpu'", "auto, cpu, gpu, oracle"]),
        ("--isa sse9", ["sse9", "avx2"]),
        ("--no-such-flag", ["--no-such-flag", "unexpected"]),
        ("--logprobs 2", ["--json", "required"]),
    ] {
        fails(stories_run("complete", flags).args(["-p", "Once"]), 2, &words);
    }
    fails(stories_run("bench", "-p 0 -n 0").arg("-v"), 2, &["nothing to measure"]);
    fails(&mut stories_run("bench", "-p 12,x"), 2, &["'x'"]);
    fails(&mut stories_run("bench", "-r 0"), 2, &["--repetitions"]);
    fails(&mut stories_run("bench", "-p 600 -n 0"), 2, &["600", "512"]);
    fails(&mut run(["no-such-command"]), 2, &["no-such-command"]);
}

#[test]
fn the_gpu_is_absent() {
    fails(stories_run("complete", "--device gpu").args(["-p", "Once"]), 5, &["GPU", "--device cpu"]);
}

#[test]
fn a_prompt_has_one_source() {
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("prompt.txt");
    fs::write(&file, "Once upon a time").expect("a file");
    let both = |subcommand| {
        let mut command = stories_run(subcommand, "-p x --file");
        command.arg(&file);
        command
    };
    fails(&mut both("complete"), 2, &["--prompt", "--file", "cannot be used with"]);
    fails(&mut both("tokenize"), 2, &["--prompt", "--file", "cannot be used with"]);
    fails(stories_run("complete", "--file").arg(dir.path().join("absent")), 2, &["cannot read", "absent"]);
    fails(stories_run("complete", "--file").arg(dir.path()), 2, &["cannot read"]);

    let flags = "--temp 0 -n 12";
    let expected = stdout(stories_run("complete", flags).args(["-p", "Once upon a time"]));
    assert!(!expected.is_empty());
    assert_eq!(stdout(stories_run("complete", flags).arg("--file").arg(&file)), expected);
    assert_eq!(stdout(stories_run("complete", flags).write_stdin("Once upon a time")), expected);
    assert_eq!(
        stdout(stories_run("complete", flags).args(["--file", "-"]).write_stdin("Once upon a time")),
        expected
    );
}

#[test]
fn input_that_is_not_utf8() {
    let bad = b"fine \xff not".as_slice();
    let words = ["UTF-8", "0xff", "offset 5"];
    for subcommand in ["complete", "tokenize", "score"] {
        fails(stories_run(subcommand, "").write_stdin(bad), 2, &words);
    }
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("latin1.txt");
    fs::write(&file, bad).expect("a file");
    fails(stories_run("complete", "--file").arg(&file), 2, &["latin1.txt", "UTF-8", "offset 5"]);
    // In a chat, the offset counts from the start of stdin too.
    let template = golden_template(dir.path());
    let mut chat = stories_run("chat", "-n 2 --chat-template");
    let assert = chat.arg(&template).write_stdin(b"\nab\nc\xfe\n".as_slice()).assert().code(2);
    assert.stderr(contains("0xfe").and(contains("offset 5")));
}

#[test]
fn a_prompt_longer_than_the_context() {
    let long = "Once upon a time ".repeat(200);
    fails(stories_run("complete", "").write_stdin(long.as_str()), 2, &["prompt", "512", "shorten"]);
    fails(stories_run("complete", "-c 64").write_stdin(long.as_str()), 2, &["64", "--ctx"]);
}

#[test]
fn the_environment_sets_flags() {
    let tokens = |command: &mut Command| json(command)["tokens"].clone();
    let expected = tokens(stories_run("tokenize", "--json").args(["-p", "Once"]));
    let mut command = run(["tokenize", "-p", "Once"]);
    assert_eq!(tokens(command.env("CCHAHA_ARG_MODEL", stories()).env("CCHAHA_ARG_JSON", "1")), expected);
    // The command line wins, and an empty variable is none.
    let mut command = stories_run("tokenize", "--json -p Once");
    assert_eq!(tokens(command.env("CCHAHA_ARG_MODEL", "/absent").env("CCHAHA_ARG_FILE", "")), expected);
    let mut command = stories_run("complete", "-p Once");
    command.env("CCHAHA_ARG_N_PREDICT", "none");
    fails(&mut command, 2, &["'none'", "Set in the environment", "CCHAHA_ARG_N_PREDICT"]);
    let mut command = stories_run("tokenize", "-p Once");
    assert!(!stdout(command.env("CCHAHA_ARG_JSON", "off")).starts_with('{'));
}

// Results.

#[test]
fn complete_streams_what_json_says() {
    let json = json(stories_run("complete", "--temp 0 -n 20 --json").args(["-p", "Once upon a time"]));
    let text = stdout(stories_run("complete", "--temp 0 -n 20").args(["-p", "Once upon a time"]));
    assert_eq!(json["text"], text);
    assert_eq!(json["finish_reason"], "length");
    assert_eq!(json["completion_tokens"], 20);
    assert_eq!(json["tokens"].as_array().map(Vec::len), Some(20));
    assert_eq!(json["prompt_tokens"], 5);
    assert!(json["timings"]["decode_tokens_per_s"].as_f64() > Some(0.0));
    assert!(json.get("logprobs").is_none());
    // The same tokens as the golden run of the reference.
    let golden: Value =
        serde_json::from_slice(&fs::read(golden("stories260K.json")).expect("numbers")).expect("JSON");
    let case = golden["cases"].as_array().expect("cases").iter().find(|c| c["prompt"] == "Once upon a time");
    let all = case.and_then(|c| c["tokens"].as_array()).expect("tokens");
    assert_eq!(json["tokens"].as_array(), Some(&all[5..25].to_vec()));
}

#[test]
fn complete_reports_log_probabilities() {
    let json = json(stories_run("complete", "--temp 0 -n 4 --json --logprobs 3").args(["-p", "Once upon"]));
    let logprobs = json["logprobs"].as_array().expect("a list");
    assert_eq!(logprobs.len(), 4);
    for (entry, token) in logprobs.iter().zip(json["tokens"].as_array().expect("tokens")) {
        assert_eq!(&entry["token"], token);
        let top = entry["top"].as_array().expect("a list");
        assert_eq!(top.len(), 3);
        assert_eq!(top[0][0], *token, "greedy takes the likeliest");
        assert_eq!(top[0][1], entry["logprob"]);
        assert!(top[0][1].as_f64() >= top[1][1].as_f64() && top[1][1].as_f64() >= top[2][1].as_f64());
    }
}

#[test]
fn sampling_flags_reach_the_sampler() {
    let tokens = |flags: &str| {
        json(stories_run("complete", &format!("-n 16 --json {flags}")).args(["-p", "Once upon a time"]))
    };
    let greedy = tokens("--temp 0");
    assert_eq!(tokens("--top-k 1 --seed 5")["tokens"], greedy["tokens"], "one candidate is the likeliest");
    let seeded = tokens("--temp 1.5 --seed 7");
    assert_eq!(seeded["tokens"], tokens("--temp 1.5 --seed 7")["tokens"]);
    assert_ne!(seeded["tokens"], tokens("--temp 1.5 --seed 8")["tokens"]);
    assert_eq!(seeded["seed"], 7);
    let first = greedy["tokens"][0].as_u64().expect("a token");
    assert_ne!(tokens(&format!("--temp 0 --logit-bias {first}-inf"))["tokens"][0], first);
    assert_eq!(tokens("--temp 0 --logit-bias 300=1e9 -n 3")["tokens"], serde_json::json!([300, 300, 300]));
    assert_ne!(
        tokens("--temp 0 --logit-bias 300=5e8 --repeat-penalty 1e9 --repeat-last-n -1")["tokens"][1],
        300,
        "penalized after its first use"
    );
}

#[test]
fn stop_texts_end_the_answer() {
    let flags = "--temp 0 -n 60 --json";
    let free = json(stories_run("complete", flags).args(["-p", "Once upon a time"]));
    let text = free["text"].as_str().expect("text");
    let stop = text.split_whitespace().nth(6).expect("seven words");
    let stopped = json(stories_run("complete", flags).args(["-p", "Once upon a time", "--stop", stop]));
    assert_eq!(stopped["finish_reason"], "stop");
    assert_eq!(stopped["text"].as_str(), text.split(stop).next());
    fails(stories_run("complete", "-p x --stop").arg(""), 2, &["stop", "empty"]);
}

#[test]
fn an_empty_prompt_begins_at_bos() {
    let json = json(stories_run("complete", "--temp 0 -n 3 --json").args(["-p", ""]));
    assert_eq!(json["prompt_tokens"], 1);
    assert_eq!(json["completion_tokens"], 3);
}

#[test]
fn a_full_context_ends_the_answer() {
    let json = json(&mut stories_run("complete", "-c 32 -n 100 --ignore-eos --json -p Once"));
    assert_eq!(json["finish_reason"], "context");
    let all = json["prompt_tokens"].as_u64().zip(json["completion_tokens"].as_u64()).map(|(a, b)| a + b);
    // The last token is written without being read again.
    assert_eq!(all, Some(33));
}

#[test]
fn every_device_and_precision_gives_the_same_story() {
    let run = |flags: &str| {
        stdout(stories_run("complete", &format!("--temp 0 -n 8 {flags}")).args(["-p", "Once upon a time"]))
    };
    let expected = run("--device cpu");
    for flags in ["--device oracle", "--exact", "--isa generic", "-t 1", "-t 2", "-b 1", "-c 64"] {
        assert_eq!(run(flags), expected, "{flags}");
    }
}

#[test]
fn tokenize_shows_tokens_and_pieces() {
    let found = json(stories_run("tokenize", "--json").args(["-p", "Once upon a time"]));
    assert_eq!(found["tokens"], serde_json::json!([403, 407, 261, 378]));
    assert_eq!(found["pieces"], serde_json::json!([" Once", " upon", " a", " time"]));
    let special = |flags| json(stories_run("tokenize", flags).args(["-p", "<s>"]))["tokens"].clone();
    assert_ne!(special("--json"), serde_json::json!([1]));
    assert_eq!(special("--json --special").as_array().and_then(|t| t.last()), Some(&Value::from(1)));
    let table = stdout(stories_run("tokenize", "").args(["-p", "Once upon"]));
    assert!(table.contains("403") && table.contains("\" Once\""), "{table}");
    assert_eq!(json(stories_run("tokenize", "--json").write_stdin(""))["tokens"], serde_json::json!([]));
}

#[test]
fn score_adds_up() {
    let text = "Once upon a time, there was a little girl.";
    let found = json(stories_run("score", "--json --top 2").write_stdin(text));
    let tokens = found["tokens"].as_array().expect("tokens");
    let logprobs = found["logprobs"].as_array().expect("logprobs");
    let top = found["top"].as_array().expect("top");
    assert_eq!(tokens[0], 1, "BOS");
    assert_eq!((logprobs.len(), top.len()), (tokens.len(), tokens.len()));
    assert!(logprobs[0].is_null() && top[0].as_array().is_some_and(Vec::is_empty));
    let scored: Vec<f64> = logprobs[1..].iter().map(|x| x.as_f64().expect("a number")).collect();
    for (logprob, top) in scored.iter().zip(&top[1..]) {
        assert_eq!(top.as_array().map(Vec::len), Some(2));
        assert!(*logprob <= top[0][1].as_f64().expect("a number"));
    }
    let sum: f64 = scored.iter().sum();
    let close = |key: &str, expected: f64| {
        let value = found[key].as_f64().expect("a number");
        assert!((value - expected).abs() < 1e-9 * expected.abs(), "{key}: {value}, expected {expected}");
    };
    assert_eq!(found["n_bytes"], text.len());
    close("bits_per_byte", -sum / std::f64::consts::LN_2 / text.len() as f64);
    close("perplexity", (-sum / scored.len() as f64).exp());

    // The same tokens from a file give the same numbers; without --top there is no "top".
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("ids.json");
    fs::write(&file, found["tokens"].to_string()).expect("a file");
    let again = json(stories_run("score", "--json --tokens-file").arg(&file));
    assert_eq!(again["logprobs"], found["logprobs"]);
    assert!(again.get("top").is_none());
    let summary = stdout(stories_run("score", "").write_stdin(text));
    assert!(summary.contains("perplexity") && summary.contains("bits per byte"), "{summary}");

    for (content, word) in
        [("{}", "JSON array"), ("[1, -3]", "JSON array"), ("[1, 99999]", "99999"), ("[1]", "2 or more")]
    {
        fs::write(&file, content).expect("a file");
        fails(stories_run("score", "--tokens-file").arg(&file), 2, &[word]);
    }
}

#[test]
fn score_reads_texts_longer_than_the_context() {
    let text = "Once upon a time there was a little dog. ".repeat(30);
    let found = json(stories_run("score", "--json -c 64").write_stdin(text));
    let logprobs = found["logprobs"].as_array().expect("logprobs");
    assert!(logprobs.len() > 256);
    assert!(logprobs[1..].iter().all(|x| x.as_f64().is_some_and(|x| x < 0.0)));
}

#[test]
fn inspect_and_plan_show_the_model() {
    let found = json(run(["inspect", "--json"]).arg(stories()));
    assert_eq!(found["metadata"]["general.architecture"], "llama");
    assert_eq!(found["metadata"]["tokenizer.ggml.tokens"]["len"], 512);
    assert_eq!(found["total"]["values"], 260_032);
    assert_eq!(found["total"]["bits_per_weight"], 32.0);
    assert_eq!(
        found["tensors"].as_array().map(Vec::len),
        found["total"]["tensors"].as_u64().map(|n| n as usize)
    );
    let full = json(run(["inspect", "--json", "--full"]).arg(stories()));
    assert_eq!(full["metadata"]["tokenizer.ggml.tokens"].as_array().map(Vec::len), Some(512));
    let shown = stdout(run(["inspect"]).arg(stories()));
    assert!(shown.contains("llama.context_length") && shown.contains("blk.4.ffn_down.weight"), "{shown}");

    let found = json(run(["plan", "--json"]).arg(stories()));
    let steps = found["steps"].as_array().expect("steps");
    assert_eq!(steps[0]["op"], "Embed");
    assert_eq!(found["layers"], 5);
    let flops: f64 = steps.iter().filter_map(|step| step["flops"].as_f64()).sum();
    assert_eq!(Some(flops), found["total"]["flops"].as_f64());
    // Two operations for every weight but the norms' and the embedding's, which is the output's too.
    let matrices = (260_032 - 11 * 64) as f64;
    let attention = 5.0 * 4.0 * 512.0 * 64.0;
    assert_eq!(flops, 2.0 * matrices + attention);
    let shown = stdout(run(["plan"]).arg(stories()));
    assert!(
        shown.contains("Attend") && shown.contains("blk.0.attn_q.weight") && shown.contains("FLOPs"),
        "{shown}"
    );
}

#[test]
fn kernels_shows_what_this_machine_picks() {
    let shown = stdout(&mut run(["kernels"]));
    for word in ["MatMul", "Attend", "Q4_K", "generic"] {
        assert!(shown.contains(word), "{word} is not in {shown}");
    }
    let found = json(&mut run(["kernels", "--json"]));
    assert!(found["kernels"].as_array().is_some_and(|rows| rows.len() > 10));
}

#[test]
fn bench_speaks_as_llama_bench_does() {
    let flags = "-p 16 -n 4 -d 0,8 -r 2 -t 1";
    let found = json(stories_run("bench", flags).args(["-o", "json"]));
    let rows = found.as_array().expect("an array");
    let tests: Vec<_> = rows.iter().map(|row| [&row["n_prompt"], &row["n_gen"], &row["n_depth"]]).collect();
    assert_eq!(serde_json::json!(tests), serde_json::json!([[16, 0, 0], [0, 4, 0], [16, 0, 8], [0, 4, 8]]));
    for row in rows {
        let samples: Vec<f64> =
            row["samples_ts"].as_array().expect("samples").iter().filter_map(Value::as_f64).collect();
        assert_eq!(samples.len(), 2);
        let mean = (samples[0] + samples[1]) / 2.0;
        assert!((row["avg_ts"].as_f64().expect("a number") - mean).abs() < 1e-6 * mean);
        assert!(row["stddev_ts"].is_number() && row["avg_ns"].is_u64() && row["n_threads"] == 1);
    }
    let table = stdout(&mut stories_run("bench", flags));
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2 + 4);
    assert!(lines[0].contains("t/s") && lines[1].starts_with("| --"));
    for (line, name) in lines[2..].iter().zip([" pp16 |", " tg4 |", " pp16 @ d8 |", " tg4 @ d8 |"]) {
        assert!(line.contains(name) && line.contains('±'), "{line}");
    }
    let csv = stdout(stories_run("bench", "-p 8 -n 0 -r 1").args(["-o", "csv"]));
    assert!(csv.starts_with("build_commit,") && csv.lines().count() == 2, "{csv}");
}

#[test]
fn fim_needs_a_hole_and_a_model_that_fills_it() {
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("code.py");
    fs::write(&file, "def f():\n    return\n").expect("a file");
    let at = |place: &str| {
        let mut command = stories_run("fim", "--file");
        command.arg(&file).args(["--at", place]);
        command
    };
    fails(&mut at("2:11"), 3, &["fill"]);
    fails(&mut at("9:1"), 2, &["code.py", "line 9"]);
    fails(&mut at("1:99"), 2, &["code.py", "column 99"]);
    fails(&mut at("0:1"), 2, &["LINE:COL"]);
    fails(stories_run("fim", "--file").arg(&file), 2, &["--at"]);
    fails(&mut stories_run("fim", ""), 2, &["no hole"]);
    fails(stories_run("fim", "--prefix-file").arg(&file), 2, &["--suffix-file"]);
}

/// A template for a model that has none: the last message is continued.
fn golden_template(dir: &Path) -> PathBuf {
    let path = dir.join("template.jinja");
    let source = "{{ bos_token }}{% for m in messages %}{{ m.role[0] }}: {{ m.content }}\n{% endfor %}";
    fs::write(&path, source).expect("a file");
    path
}

#[test]
fn chat_answers_line_by_line() {
    let dir = TempDir::new().expect("a folder");
    let template = golden_template(dir.path());
    let chat = |stdin: &str| {
        let mut command = stories_run("chat", "--temp 0 -n 6 --chat-template");
        command.arg(&template).current_dir(dir.path()).write_stdin(stdin);
        command
    };
    fails(stories_run("chat", "").write_stdin("hello\n"), 3, &["chat template", "--chat-template"]);
    let one = stdout(&mut chat("Once upon a time\n"));
    assert!(one.ends_with('\n') && one.len() > 5, "{one:?}");
    let again = stdout(&mut chat("Once upon a time\n\n/clear\nOnce upon a time\n/regen\n/exit\nunread\n"));
    assert_eq!(again, one.repeat(3));
    // Commands say what they say on stderr; a system message changes the answer.
    chat("/help\n/stats\n")
        .assert()
        .success()
        .stdout(is_empty())
        .stderr(contains("/system").and(contains("512")));
    let led = stdout(&mut chat("/system The dragon was very angry and hot.\nOnce upon a time\n"));
    assert_ne!(led, one);
    fails(&mut chat("/nonsense\n"), 2, &["/nonsense", "/help"]);
    // A block and continued lines are one message each.
    assert_eq!(stdout(&mut chat("\"\"\"\nOnce\nupon\n\"\"\"\n")), stdout(&mut chat("Once\\\nupon\n")));
    // What is saved can be loaded.
    stdout(&mut chat("Once upon a time\n/save chat.json\n"));
    let saved: Value =
        serde_json::from_slice(&fs::read(dir.path().join("chat.json")).expect("saved")).expect("JSON");
    assert_eq!(saved[0], serde_json::json!({ "role": "user", "content": "Once upon a time" }));
    assert_eq!(saved[1]["content"].as_str(), one.strip_suffix('\n'));
    assert_eq!(stdout(&mut chat("/load chat.json\n/regen\n")), one);
    fails(&mut chat("/load absent.json\n"), 2, &["absent.json"]);
}

#[test]
fn a_conversation_longer_than_the_context_is_refused() {
    let dir = TempDir::new().expect("a folder");
    let template = golden_template(dir.path());
    let mut command = stories_run("chat", "-c 32 --chat-template");
    command.arg(&template).write_stdin(format!("{}\n", "Once upon a time ".repeat(20)));
    command.assert().code(2).stderr(contains("32"));
}

// The terminal's side.

#[test]
fn help_has_examples() {
    for subcommand in [
        "complete",
        "chat",
        "fim",
        "tokenize",
        "score",
        "inspect",
        "plan",
        "kernels",
        "bench",
        "completions",
        "man",
    ] {
        let help = stdout(&mut run([subcommand, "--help"]));
        assert!(help.contains("Examples:") && help.contains(&format!("cchaha-run {subcommand}")), "{help}");
    }
    let help = stdout(&mut run(["--help"]));
    assert!(help.contains("CCHAHA_ARG_") && help.contains("130"), "{help}");
    run(["--version"]).assert().success().stdout(contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = stdout(&mut run(["completions", shell]));
        assert!(script.contains("tokenize") && script.contains("repeat-penalty"), "{shell}");
    }
    assert!(stdout(&mut run(["man"])).starts_with(".ie"));
    let dir = TempDir::new().expect("a folder");
    run(["man", "--out-dir"]).arg(dir.path()).assert().success();
    let page = fs::read_to_string(dir.path().join("cchaha-run-complete.1")).expect("a page per subcommand");
    assert!(page.contains("frequency") && page.contains("Examples"));
    fails(run(["man", "--out-dir"]).arg(dir.path().join("absent")), 1, &["absent"]);
}

#[test]
fn no_escape_codes_where_nobody_sees_colours() {
    let output = stories_run("complete", "-v -n 4 -p Once").assert().success().get_output().clone();
    assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("t/s") && stderr.contains("KV cache"), "-v says more: {stderr}");
    let quiet = stories_run("complete", "-n 4 -p Once").assert().success().get_output().stderr.clone();
    assert!(quiet.is_empty(), "{}", String::from_utf8_lossy(&quiet));
    stories_run("complete", "-n 4 -p Once")
        .env("RUST_LOG", "info")
        .assert()
        .success()
        .stderr(contains("KV cache"));
}

fn spawn(args: &str) -> Child {
    let mut command = command();
    let mut words = args.split_whitespace();
    command.arg(words.next().expect("a subcommand")).arg("-m").arg(stories()).args(words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = spawn("complete -p Once -n 500 --ignore-eos --device oracle");
    let mut first = [0; 4];
    child.stdout.take().expect("a pipe").read_exact(&mut first).expect("some text");
    // The pipe is closed now.
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");

    let mut child = spawn("inspect --full");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_one() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let mut command = command();
    command.arg("tokenize").arg("-m").arg(stories()).args(["-p", "Once"]);
    let output = command.stdout(full).stderr(Stdio::piped()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: cannot write to stdout"));
}

#[cfg(unix)]
fn interrupt(child: &Child) {
    let status = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(status.expect("kill runs").success());
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_was_written() {
    let mut child = spawn("complete -p Once -n 500 --ignore-eos --device oracle");
    let mut out = child.stdout.take().expect("a pipe");
    let mut first = [0; 4];
    out.read_exact(&mut first).expect("some text");
    interrupt(&child);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");

    // With --json the object comes all the same, and says so.
    let mut child = spawn("complete -p Once -n 500 --ignore-eos --device oracle --json -v");
    let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let loaded = stderr.lines().next().expect("a line about the model").expect("UTF-8");
    assert!(loaded.contains("KV cache"), "{loaded}");
    std::thread::sleep(std::time::Duration::from_millis(300));
    interrupt(&child);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    let json: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(json["finish_reason"], "interrupted");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_work_without_a_partial_result() {
    let mut command = command();
    command.args(["score", "--device", "oracle", "-v", "-m"]).arg(stories());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let text = "Once upon a time there was a little dog. ".repeat(100);
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    std::thread::sleep(std::time::Duration::from_millis(300));
    interrupt(&child);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(130), 0));
}
