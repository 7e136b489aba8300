//! Damaged checkpoints: one clear sentence each, no panic, and memory bounded by the size of the files.

use std::fs;

use serde_json::{Map, json};
use tempfile::TempDir;

use super::*;

/// xorshift64*: the same damage on every run.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize) % n.max(1)
    }
}

/// Values that are wrong nearly everywhere.
fn wrong(rng: &mut Rng) -> Value {
    let all = [
        Value::Null,
        json!(-1),
        json!(0),
        json!(3),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(1e308),
        json!(0.5),
        json!(true),
        json!(""),
        json!("../../etc/passwd"),
        json!("x".repeat(5000)),
        json!([]),
        json!([[[]]]),
        json!({}),
        json!({"type": "Unknown"}),
    ];
    all[rng.below(all.len())].clone()
}

/// Changes one value somewhere in the tree.
fn change(value: &mut Value, rng: &mut Rng) {
    match value {
        Value::Object(map) if !map.is_empty() && rng.below(8) > 0 => {
            let key = map.keys().nth(rng.below(map.len())).expect("a key").clone();
            match rng.below(10) {
                0 => drop(map.shift_remove(&key)),
                1 => {
                    let value = map.shift_remove(&key).expect("it is there");
                    map.insert(format!("{key}_"), value);
                }
                _ => change(&mut map[&key], rng),
            }
        }
        Value::Array(list) if !list.is_empty() && rng.below(8) > 0 => {
            let i = rng.below(list.len());
            match rng.below(10) {
                0 => drop(list.remove(i)),
                1 => list.push(list[i].clone()),
                _ => change(&mut list[i], rng),
            }
        }
        _ => *value = wrong(rng),
    }
}

/// Changes bytes wherever they are.
fn garble(bytes: &mut Vec<u8>, rng: &mut Rng) {
    match rng.below(4) {
        0 => bytes.truncate(rng.below(bytes.len())),
        1 => {
            let at = rng.below(bytes.len() + 1);
            bytes.splice(at..at, (0..rng.below(9)).map(|i| b"{\"\x00\xFF,:[1}"[i]));
        }
        _ => {
            for _ in 0..=rng.below(4) {
                let at = rng.below(bytes.len());
                bytes[at] = rng.below(256) as u8;
            }
        }
    }
}

/// A safetensors file with another header before the same data.
fn with_header(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let len = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let (header, data) = bytes[8..].split_at(len);
    let mut header = header.to_vec();
    let mut declared = None;
    match rng.below(4) {
        0 => {
            declared = Some([0, 1, len as u64 - 1, len as u64 + 1, u64::MAX, 1 << 40, 1 << 63][rng.below(7)])
        }
        1 => garble(&mut header, rng),
        _ => {
            let mut value: Map<String, Value> = serde_json::from_slice(&header).expect("valid JSON");
            let key = value.keys().nth(rng.below(value.len())).expect("a key").clone();
            change(&mut value[&key], rng);
            header = serde_json::to_vec(&value).expect("it came from JSON");
        }
    }
    let declared = declared.unwrap_or(header.len() as u64);
    [&declared.to_le_bytes()[..], &header, data].concat()
}

/// Opens a folder and reads all there is. Gives the sentence of the error, if there is one.
fn try_all(folder: &Path) -> Option<String> {
    let source = match HfSource::open(folder) {
        Ok(source) => source,
        Err(error) => return Some(error.message().to_owned()),
    };
    for (i, tensor) in source.tensors().iter().enumerate() {
        let mut values = vec![0.0; tensor.dims.n_values()];
        if let Err(error) = source.read_rows(i, 0..tensor.dims.rows(), &mut values) {
            return Some(error.message().to_owned());
        }
    }
    None
}

/// The most memory this process has held, where the system says so.
fn peak_bytes() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? << 10)
}

/// Damages one file of the fixture `rounds` times, and gives how often that was refused.
fn damage(name: &str, rounds: usize) -> usize {
    let folder = TempDir::new().expect("a folder");
    let mut files = Vec::new();
    for entry in fs::read_dir(fixture(name)).expect("a fixture") {
        let path = entry.expect("an entry").path();
        let file = path.file_name().expect("a name").to_string_lossy().into_owned();
        if file != "expected.json" {
            let bytes = fs::read(&path).expect("a file");
            fs::write(folder.path().join(&file), &bytes).expect("a copy");
            files.push((file, bytes));
        }
    }
    files.sort();
    assert_eq!(try_all(folder.path()), None, "{name}");
    let (mut rng, mut refused) = (Rng(42), 0);
    for _ in 0..rounds {
        let (file, bytes) = &files[rng.below(files.len())];
        let damaged = if file.ends_with(".safetensors") {
            with_header(bytes, &mut rng)
        } else if file.ends_with(".json") && rng.below(4) > 0 {
            let mut value = serde_json::from_slice(bytes).expect("valid JSON");
            change(&mut value, &mut rng);
            serde_json::to_vec(&value).expect("it came from JSON")
        } else {
            let mut bytes = bytes.clone();
            garble(&mut bytes, &mut rng);
            bytes
        };
        fs::write(folder.path().join(file), &damaged).expect("a damaged file");
        if let Some(message) = try_all(folder.path()) {
            assert!(message.contains(&*folder.path().to_string_lossy()), "{message}");
            assert!(message.len() < 6500 && !message.contains('\n'), "{message}");
            refused += 1;
        }
        fs::write(folder.path().join(file), bytes).expect("the file");
    }
    assert_eq!(try_all(folder.path()), None, "{name}");
    refused
}

#[test]
fn damaged_files_are_named() {
    const ROUNDS: usize = 1000;
    let names = ["llama", "qwen3moe", "gemma3", "llama3", "stories260K"];
    // Most of the time goes into writing files.
    let refused: usize = std::thread::scope(|scope| {
        let threads = names.map(|name| scope.spawn(move || damage(name, ROUNDS)));
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    let rounds = ROUNDS * names.len();
    eprintln!(
        "{refused} of {rounds} damaged checkpoints were refused, the others do not depend on what was changed"
    );
    // Much of what is changed at random matters to nobody: a dropout rate, the text of a token.
    assert!(refused * 2 > rounds, "{refused} of {rounds}");
    if let Some(peak) = peak_bytes() {
        eprintln!("{} MiB at most", peak >> 20);
        assert!(peak < 1 << 30, "{peak} bytes were held at a time");
    }
}
