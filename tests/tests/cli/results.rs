//! What each subcommand prints.

use super::*;

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
    // Of a flag given twice the last one counts.
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
    assert!(csv.contains(",kv_budget,kv_policy,rope") && csv.contains(",\"\",\"full\",\"\""), "{csv}");
    let flags = "-p 0 -n 2 -d 80 -r 1 --kv-budget 64 --kv-policy structure --rope yarn";
    let table = stdout(&mut stories_run("bench", flags));
    assert!(table.contains(" tg2 @ d80, 64 structure, rope yarn |"), "{table}");
    let found = json(stories_run("bench", flags).args(["-o", "json"]));
    let window = [&found[0]["kv_budget"], &found[0]["kv_policy"], &found[0]["rope"]];
    assert_eq!(serde_json::json!(window), serde_json::json!([64, "structure", "yarn"]));
}

#[test]
fn bench_says_what_a_test_reaches_of_the_roofs_and_draws_it() {
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("roofline.svg");
    let flags = "-p 16 -n 4 -d 8 -r 1 -t 2 --device cpu -o json";
    let found = json(stories_run("bench", flags).arg("--plot").arg(&file));
    let number = |row: &Value, name: &str| row[name].as_f64().unwrap_or_else(|| panic!("no {name} in {row}"));
    // A token: two operations for every weight but the norms', and attention; every such weight read once, in four bytes, and the keys and
    // values of 9 to 12 cells.
    let weights = (260_032 - 11 * 64) as f64;
    let cells = (9 + 10 + 11 + 12) as f64 / 4.0;
    let (ops, bytes) =
        (2.0 * weights + 5.0 * 4.0 * cells * 64.0, 4.0 * (weights + 64.0) + 5.0 * 2.0 * 2.0 * 32.0 * cells);
    let writing = &found[1];
    assert!(
        (number(writing, "ops_per_byte") / (ops / bytes) - 1.0).abs() < 1e-9,
        "{writing}, {ops} / {bytes}"
    );
    for row in found.as_array().expect("rows") {
        let rate = number(row, "ops_per_byte") * number(row, "read_roof_bytes_per_s");
        let roof = rate.min(number(row, "multiply_roof_ops_per_s"));
        let share = number(row, "ops_per_s") / roof;
        assert!((number(row, "roof_fraction") / share - 1.0).abs() < 1e-9 && share > 0.0, "{row}");
    }
    let picture = fs::read_to_string(&file).expect("a picture");
    for word in
        ["<svg", ">pp16 @ d8<", ">tg4 @ d8<", "F32, 1 token<", "F32, 64 tokens<", "Gop/s in 8 bits", "</svg>"]
    {
        assert!(picture.contains(word), "{word} is not in {picture}");
    }
    let table = stdout(&mut stories_run("bench", "-p 8 -n 0 -r 1 --device cpu"));
    assert!(
        table.lines().next().is_some_and(|head| head.ends_with("| of roof |")) && table.ends_with(" % |\n"),
        "{table}"
    );
    let absent = dir.path().join("absent").join("roofline.svg");
    fails(stories_run("bench", "--plot").arg(&absent), 2, &["cannot write", "absent"]);
    fails(
        stories_run("bench", "-p 8 -n 0 -r 1 --device oracle --plot").arg(&file),
        2,
        &["--plot", "--device cpu"],
    );
}

#[test]
fn layers_on_the_gpu_are_asked_for_as_llama_cpp_does() {
    let flags = |more: &str| format!("{more} -p 8 -n 8 -r 1 -o json");
    let layers = |found: &Value| found.as_array().expect("an array")[1]["n_gpu_layers"].as_u64();
    assert_eq!(layers(&json(&mut stories_run("bench", &flags("--device cpu -ngl 99")))), Some(0));
    fails(&mut stories_run("bench", &flags("-ngl many")), 2, &["--gpu-layers", "many"]);
    for (given, want) in [("-ngl 99", 5), ("-ngl 2", 2), ("--n-gpu-layers 1", 1)] {
        let mut run = stories_run("bench", &flags(&format!("--device gpu {given}")));
        let output = run.output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(5) {
            let required = std::env::var_os("CCHAHA_REQUIRE_GPU").is_some_and(|value| !value.is_empty());
            assert!(!required, "{stderr}");
            eprintln!("not tested: {stderr}");
            return;
        }
        assert!(output.status.success(), "{stderr}");
        let found = serde_json::from_slice(&output.stdout).expect("one JSON value on stdout");
        assert_eq!(layers(&found), Some(want), "{given}");
    }
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
    fails(&mut at("0:1"), 2, &["0:1", "from 1"]);
    fails(&mut at("x"), 2, &["LINE:COL"]);
    fails(stories_run("fim", "--file").arg(&file), 2, &["--at"]);
    fails(&mut stories_run("fim", ""), 2, &["no hole"]);
    fails(stories_run("fim", "--prefix-file").arg(&file), 2, &["--suffix-file"]);
}
