//! The commands: conversions, refusals, splits, checksums, importance matrices, comparisons, sizes to measure.

use std::fs;
use std::path::Path;

use cchaha_gguf::{Array, Gguf, Value};
use serde_json::Value as Json;
use tempfile::tempdir;

use crate::{fails, run, stdout, stories, synthetic};

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// A story for a model of stories, long enough for a few windows of 64 tokens.
const STORY: &str = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, \
    she saw a big red ball. She wanted to play with it, but it was too high. Lily asked her mom for help. Her mom said, \
    \"Let's find a long stick.\" They looked and looked, and then they found one. Lily was very happy. She said thank you \
    to her mom and they played with the ball all day. The end. Tom and his dog went to the big tree. The dog ran fast.";

#[test]
fn a_conversion_keeps_names_shapes_and_metadata() {
    let folder = tempdir().unwrap();
    let target = folder.path().join("out.gguf");
    let printed = stdout(&[&stories(), text(&target), "--type", "Q8_0", "--threads", "2"]);
    assert!(printed.contains("wrote") && printed.contains("bits per weight"), "{printed}");
    let (source, made) = (Gguf::open(stories().as_ref()).unwrap(), Gguf::open(&target).unwrap());
    for (key, value) in source.metadata().iter() {
        if key != "general.file_type" && key != "general.quantization_version" {
            assert_eq!(made.metadata().get(key), Some(value), "{key}");
        }
    }
    assert_eq!(made.metadata().u32("general.file_type").unwrap(), Some(7));
    let list = |file: &Gguf| file.tensors().iter().map(|t| (t.name.clone(), t.dims)).collect::<Vec<_>>();
    assert_eq!(list(&made), list(&source));
    assert_eq!(made.tensor("blk.0.attn_q.weight").unwrap().format.name(), "Q8_0");
    // Rows of 172 values fit no block.
    assert_eq!(made.tensor("blk.0.ffn_down.weight").unwrap().format.name(), "F16");
    assert_eq!(made.tensor("blk.0.attn_norm.weight").unwrap().format.name(), "F32");
}

#[test]
fn threads_and_splits_change_no_byte() {
    let folder = tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    synthetic(&at("in.gguf"));
    let convert = |name: &str, more: &[&str]| {
        let (input, output) = (at("in.gguf"), at(name));
        let mut args = vec![text(&input), text(&output), "--type", "Q4_K_M"];
        args.extend(more);
        stdout(&args)
    };
    convert("one.gguf", &["-j", "1"]);
    convert("three.gguf", &["-j", "3"]);
    assert!(fs::read(at("one.gguf")).unwrap() == fs::read(at("three.gguf")).unwrap());
    let printed = convert("part.gguf", &["--split-max-size", "700K"]);
    let parts: Vec<&str> = printed.lines().filter(|line| line.starts_with("wrote")).collect();
    assert!(parts.len() > 2, "{printed}");
    let split = Gguf::open(&at(&format!("part-00002-of-{:05}.gguf", parts.len()))).unwrap();
    let whole = Gguf::open(&at("one.gguf")).unwrap();
    assert_eq!(split.tensors().len(), whole.tensors().len());
    for tensor in whole.tensors() {
        let twin = split.tensor(&tensor.name).unwrap();
        assert!(
            twin.format == tensor.format && twin.data.as_slice() == tensor.data.as_slice(),
            "{}",
            tensor.name
        );
    }
    assert!(
        stdout(&["verify", text(&at(&format!("part-00001-of-{:05}.gguf", parts.len())))])
            .contains("checksums match")
    );
    // The parts are a source, too, and the same formats are copied.
    let (first, joined) = (at(&format!("part-00001-of-{:05}.gguf", parts.len())), at("joined.gguf"));
    stdout(&[text(&first), text(&joined), "--type", "Q4_K_M"]);
    assert!(fs::read(joined).unwrap() == fs::read(at("one.gguf")).unwrap());
}

#[test]
fn choices_of_the_user_come_first() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("in.gguf");
    synthetic(&path);
    let table = stdout(&[
        text(&path),
        "--type",
        "Q4_K_M",
        "--tensor-type",
        "blk.3.ffn_gate=Q2_K",
        "--tensor-type",
        "ffn_gate=IQ4_XS",
        "--output-type",
        "Q5_K",
        "--embedding-type",
        "Q8_0",
        "--dry-run",
    ]);
    let format = |name: &str| {
        let row = table.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).nth(3).unwrap().to_owned()
    };
    assert_eq!(format("blk.3.ffn_gate.weight"), "Q2_K");
    assert_eq!(format("blk.4.ffn_gate.weight"), "IQ4_XS");
    assert_eq!(format("output.weight"), "Q5_K");
    assert_eq!(format("token_embd.weight"), "Q8_0");
    assert!(table.contains("bits per weight"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a dry run writes nothing");
}

#[test]
fn what_would_cost_something_is_refused() {
    let folder = tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::copy(stories(), at("in.gguf")).unwrap();
    let input = at("in.gguf");
    let before = fs::read(&input).unwrap();
    let input = text(&input);
    fails(&[input, input, "-t", "Q8_0"], 2, &["is the input itself"]);
    fails(&[input, input, "-t", "Q8_0", "--force"], 2, &["is the input itself"]);
    let indirect = at(".").join("in.gguf");
    fails(&[input, text(&indirect), "-t", "Q8_0", "--force"], 2, &["is the input itself"]);
    fs::write(at("there.gguf"), "precious").unwrap();
    fails(&[input, text(&at("there.gguf")), "-t", "Q8_0"], 2, &["exists", "--force"]);
    assert_eq!(fs::read(at("there.gguf")).unwrap(), b"precious");
    stdout(&[input, text(&at("there.gguf")), "-t", "Q8_0", "--force"]);
    fails(&[input, text(folder.path()), "-t", "Q8_0"], 2, &["is a folder"]);
    fails(&[input, text(&at("x.gguf"))], 2, &["no type given"]);
    fails(
        &[input, text(&at("x.gguf")), "-t", "Q8_0", "--tensor-type", "nothing=Q4_0"],
        2,
        &["no tensor's name holds"],
    );
    fails(
        &[input, text(&at("x.gguf")), "-t", "Q8_0", "--tensor-type", "ffn_down=Q4_K"],
        2,
        &["cannot hold", "172"],
    );
    fails(&[text(&at("no.gguf")), text(&at("x.gguf")), "-t", "Q8_0"], 3, &["no such file"]);
    fails(&["hf:a/b", text(&at("x.gguf")), "-t", "Q8_0"], 2, &["on the hub", "cchaha-run pull hf:a/b"]);
    fails(&["verify", "hf:a/b:Q8_0"], 2, &["cchaha-run pull hf:a/b:Q8_0"]);
    fails(&[input, text(&at("x.gguf")), "-t", "Q8_0", "--imatrix", input], 3, &["general.type", "imatrix"]);
    let missing = at("no/x.gguf");
    let output = run(&[input, text(&missing), "-t", "Q8_0"]);
    assert!(!output.status.success() && !missing.exists());
    assert!(!at("x.gguf").exists());
    assert!(fs::read(input).unwrap() == before, "the source is untouched");
}

#[test]
fn damage_is_found() {
    let folder = tempdir().unwrap();
    let target = folder.path().join("out.gguf");
    stdout(&[&stories(), text(&target), "-t", "Q8_0"]);
    assert!(stdout(&["verify", text(&target)]).contains("checksums match"));
    let file = Gguf::open(&target).unwrap();
    let tensor = file.tensor("blk.2.attn_q.weight").unwrap();
    let at = tensor.offset as usize + tensor.data.len() / 2;
    drop(file);
    let mut bytes = fs::read(&target).unwrap();
    bytes[at] ^= 4;
    fs::write(&target, bytes).unwrap();
    fails(&["verify", text(&target)], 3, &["blk.2.attn_q.weight", "checksum differs"]);
    // A file of others: no checksums, but every value is looked at.
    assert!(stdout(&["verify", &stories()]).contains("no checksums"));
    let mut bytes = fs::read(stories()).unwrap();
    let file = Gguf::open(stories().as_ref()).unwrap();
    let at = file.tensor("blk.2.attn_q.weight").unwrap().offset as usize + 64 * 4;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&target, bytes).unwrap();
    fails(&["verify", text(&target)], 3, &["blk.2.attn_q.weight", "row 1, column 0"]);
    fails(
        &[text(&target), text(&folder.path().join("x.gguf")), "-t", "Q8_0"],
        3,
        &["blk.2.attn_q.weight", "row 1, column 0", "not a number"],
    );
}

#[test]
fn importance_is_collected_and_used() {
    let folder = tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("story.txt"), STORY).unwrap();
    let (story, matrix) = (at("story.txt"), at("matrix.gguf"));
    let collect = ["imatrix", "-m", &stories(), "--text", text(&story), "-o", text(&matrix), "--ctx", "64"];
    stdout(&collect);
    fails(&collect, 2, &["exists", "--force"]);
    let file = Gguf::open(&matrix).unwrap();
    assert_eq!(file.metadata().str("general.type").unwrap(), Some("imatrix"));
    assert_eq!(file.metadata().u32("imatrix.chunk_size").unwrap(), Some(64));
    let chunks = file.metadata().u32("imatrix.chunk_count").unwrap().unwrap();
    assert!(chunks >= 2);
    let counts = file.tensor("blk.0.attn_q.weight.counts").unwrap();
    assert_eq!(counts.data.as_slice(), (64.0 * chunks as f32).to_le_bytes());
    // Q, K and V see the same inputs, and so do gate and up.
    let sums =
        |name: &str| file.tensor(&format!("blk.0.{name}.weight.in_sum2")).unwrap().data.as_slice().to_vec();
    assert_eq!(sums("attn_q"), sums("attn_v"));
    assert_eq!(sums("ffn_gate"), sums("ffn_up"));
    assert_ne!(sums("attn_q"), sums("ffn_up"));
    // An RMS norm without its weight would make every input's mean square 1.
    let total: f32 = sums("attn_q").as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).sum();
    assert!(total > 0.0 && total.is_finite());

    let convert = |name: &str, more: &[&str]| {
        let (input, output) = (stories(), at(name));
        let mut args = vec![input.as_str(), text(&output), "-t", "Q4_0"];
        args.extend(more);
        stdout(&args);
        let compared =
            ["compare", &stories(), text(&output), "--text", text(&story), "--ctx", "64", "--json"];
        serde_json::from_str::<Json>(&stdout(&compared)).unwrap()["text"]["kl_mean"].as_f64().unwrap()
    };
    let (plain, weighted) =
        (convert("plain.gguf", &[]), convert("weighted.gguf", &["--imatrix", text(&matrix)]));
    assert!(fs::read(at("plain.gguf")).unwrap() != fs::read(at("weighted.gguf")).unwrap());
    assert!(weighted < 1.2 * plain, "{weighted} with importance, {plain} without");
}

#[test]
fn a_model_is_equal_to_itself_and_near_its_copies() {
    let folder = tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("story.txt"), STORY).unwrap();
    let compare = |b: &str| {
        let output =
            stdout(&["compare", &stories(), b, "--text", text(&at("story.txt")), "--ctx", "64", "--json"]);
        serde_json::from_str::<Json>(&output).unwrap()
    };
    let same = compare(&stories());
    assert_eq!(same["text"]["kl_mean"], 0.0);
    assert_eq!(same["text"]["top1_agreement"], 1.0);
    assert_eq!(same["text"]["perplexity_a"], same["text"]["perplexity_b"]);
    let mut last = 0.0;
    for mix in ["Q8_0", "Q5_0", "IQ4_NL"] {
        let target = at(&format!("{mix}.gguf"));
        stdout(&[&stories(), text(&target), "-t", mix]);
        let result = compare(text(&target));
        let kl = result["text"]["kl_mean"].as_f64().unwrap();
        assert!(kl > last, "{mix}: {kl} after {last}");
        last = kl;
        let q = result["tensors"]
            .as_array()
            .unwrap()
            .iter()
            .find(|t| t["name"] == "blk.0.attn_q.weight")
            .unwrap();
        assert_eq!(q["b"], mix);
        assert!(q["relative_rmse"].as_f64().unwrap() < 0.1 && q["max_error"].as_f64() > q["rmse"].as_f64());
    }
    assert!(last < 0.5, "{last}");
    let (picture, other) = (at("loss.svg"), at("IQ4_NL.gguf"));
    let table = stdout(&["compare", &stories(), text(&other), "--svg", text(&picture)]);
    assert!(table.contains("blk.4.ffn_up.weight") && !table.contains("KL"));
    let svg = fs::read_to_string(picture).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    assert!(svg.matches("<circle").count() > 30);
    let synthetic_model = at("other.gguf");
    synthetic(&synthetic_model);
    fails(&["compare", &stories(), text(&synthetic_model)], 2, &["different models"]);
}

#[test]
fn a_size_is_met_and_used_well() {
    let folder = tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("story.txt"), STORY.repeat(8)).unwrap();
    let story = at("story.txt");
    let kl = |b: &Path| {
        let args = [
            "compare",
            &stories(),
            text(b),
            "--text",
            text(&story),
            "--ctx",
            "128",
            "--windows",
            "4",
            "--json",
        ];
        serde_json::from_str::<Json>(&stdout(&args)).unwrap()["text"]["kl_mean"].as_f64().unwrap()
    };
    let (mix, bits) = (at("q4_0.gguf"), at("bits.gguf"));
    stdout(&[&stories(), text(&mix), "-t", "Q4_0"]);
    let size = fs::metadata(&mix).unwrap().len();
    let (searched, wanted) = (at("searched.gguf"), size.to_string());
    stdout(&[&stories(), text(&searched), "--to-size", &wanted, "--text", text(&story)]);
    let found = fs::metadata(&searched).unwrap().len();
    assert!(found <= size && found > size * 9 / 10, "{found} of {size} bytes");
    let (ours, theirs) = (kl(&searched), kl(&mix));
    assert!(ours < 0.85 * theirs, "{ours} searched, {theirs} with Q4_0");

    // What is measured is kept, and gives the same file without measuring again.
    let (again, kept) = (at("again.gguf"), at("kept.json"));
    let measuring =
        [&stories(), text(&again), "--to-size", &wanted, "--text", text(&story), "--measured", text(&kept)];
    stdout(&measuring);
    assert!(fs::read(&again).unwrap() == fs::read(&searched).unwrap());
    let measured = fs::read_to_string(&kept).unwrap();
    let changed: Json = serde_json::from_str(&measured).unwrap();
    assert!(changed["divergence"]["attn_q 0"].as_f64().unwrap() > 0.0, "{measured}");
    fs::remove_file(&again).unwrap();
    stdout(&measuring);
    assert!(fs::read(&again).unwrap() == fs::read(&searched).unwrap());
    assert_eq!(fs::read_to_string(&kept).unwrap(), measured);
    fs::write(at("other.txt"), "Another story. ".repeat(200)).unwrap();
    let other = at("other.txt");
    fails(
        &[
            &stories(),
            text(&bits),
            "--to-bits-per-weight",
            "6",
            "--text",
            text(&other),
            "--measured",
            text(&kept),
        ],
        2,
        &["another model or another text"],
    );

    stdout(&[&stories(), text(&bits), "--to-bits-per-weight", "8.5", "--text", text(&story)]);
    let file = Gguf::open(&bits).unwrap();
    let (bytes, values) =
        file.tensors().iter().fold((0, 0), |(b, v), t| (b + t.data.len(), v + t.dims.n_values()));
    let reached = 8.0 * bytes as f64 / values as f64;
    assert!(reached <= 8.5 && reached > 8.2, "{reached} bits per weight");
    assert!(matches!(file.metadata().get("cchaha.checksum.tensors"), Some(Value::Array(Array::U64(_)))));
    let nothing = at("nothing.gguf");
    fails(
        &[&stories(), text(&nothing), "--to-bits-per-weight", "2", "--text", text(&story)],
        2,
        &["too few"],
    );
    fails(&[&stories(), text(&nothing), "--to-bits-per-weight", "5"], 2, &["--text"]);
}
