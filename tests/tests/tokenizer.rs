//! The tokenizers against the ids other implementations give: llama.cpp's test vectors, Hugging Face
//! `tokenizers` and SentencePiece on source code and on random Unicode.
//!
//! `tests/tokenizer/prepare.py` makes the material; the tests fail where it is missing.

#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::time::Instant;

use cchaha::text::{Special, Tokenizer};
use cchaha_gguf::Gguf;

/// The families with vectors in llama.cpp, by the name of their file.
const VECTORS: [&str; 12] = [
    "command-r",
    "deepseek-coder",
    "deepseek-llm",
    "falcon",
    "gpt-2",
    "llama-bpe",
    "llama-spm",
    "mpt",
    "phi-3",
    "qwen2",
    "refact",
    "starcoder",
];

/// The vocabularies another implementation encoded the texts with. Hugging Face's takes the names of control
/// tokens in a text for these, SentencePiece never does.
const ENCODED: [(&str, Special); 10] = [
    ("deepseek-coder", Special::Parse),
    ("deepseek-llm", Special::Parse),
    ("falcon", Special::Parse),
    ("gemma3", Special::Parse),
    ("gpt-2", Special::Parse),
    ("llama-spm", Special::Plain),
    ("llama3", Special::Parse),
    ("mpt", Special::Parse),
    ("qwen3", Special::Parse),
    ("starcoder", Special::Parse),
];

/// `tokenizer/` in the folder `CCHAHA_TEST_DATA` names, or in `target/test-data`.
fn data() -> PathBuf {
    let root = std::env::var_os("CCHAHA_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-data"), PathBuf::from);
    let folder = root.join("tokenizer");
    assert!(folder.is_dir(), "{} is missing; make it with tests/tokenizer/prepare.py", folder.display());
    folder
}

fn tokenizer(name: &str) -> Tokenizer {
    let path = data().join(format!("{name}.gguf"));
    let gguf = Gguf::open(&path).unwrap_or_else(|error| panic!("{error}"));
    Tokenizer::from_gguf(gguf.metadata()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn read(file: &str) -> Vec<u8> {
    let path = data().join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Items of `size` bytes, each list preceded by its count as a little-endian `u32`.
fn lists(bytes: &[u8], size: usize) -> Vec<&[u8]> {
    let (mut lists, mut rest) = (Vec::new(), bytes);
    while let Some((count, after)) = rest.split_first_chunk() {
        let (list, after) = after.split_at(u32::from_le_bytes(*count) as usize * size);
        lists.push(list);
        rest = after;
    }
    lists
}

fn ids(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|id| u32::from_le_bytes(id.try_into().expect("four bytes"))).collect()
}

/// A small random number generator (xorshift64*), so that every run tests the same.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((u128::from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)) * end as u128) >> 64) as usize
    }
}

#[test]
fn vectors_of_llama_cpp() {
    for name in VECTORS {
        let tokenizer = tokenizer(name);
        let texts = String::from_utf8(read(&format!("{name}.gguf.inp"))).expect("the vectors are UTF-8");
        let expected = String::from_utf8(read(&format!("{name}.gguf.out"))).expect("the vectors are UTF-8");
        let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        // Each list ends its line, and the last text is empty.
        let expected: Vec<&str> = expected.lines().collect();
        assert!(expected.len() >= 40 && texts.len() >= expected.len(), "{name}: {} vectors", expected.len());
        for (text, line) in texts.iter().zip(&expected) {
            let expected: Vec<u32> = line.split_whitespace().map(|id| id.parse().expect("an id")).collect();
            assert_eq!(tokenizer.encode(text, Special::Plain), expected, "{name}: {text:?}");
        }
        println!("{name}: {} vectors equal", expected.len());
    }
}

/// Where two lists of ids part, with what they say there.
fn difference(tokenizer: &Tokenizer, text: &[u8], ours: &[u32], theirs: &[u32]) -> String {
    let at = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    let show = |ids: &[u32]| {
        let pieces =
            ids.iter().skip(at).take(8).map(|&id| String::from_utf8_lossy(tokenizer.piece(id, true)));
        format!("{:?}", pieces.collect::<Vec<_>>())
    };
    let before = tokenizer.decode(&ours[..at], true);
    let start = before.len().min(text.len());
    let near = String::from_utf8_lossy(&text[start.saturating_sub(20)..(start + 40).min(text.len())]);
    format!("token {at}, near {near:?}: {} instead of {}", show(ours), show(theirs))
}

fn compare_with_others(texts: &str) -> usize {
    let file = read(texts);
    let texts_list = lists(&file, 1);
    for (name, special) in ENCODED {
        let tokenizer = tokenizer(name);
        let expected = read(&format!("{name}.{texts}.ids"));
        let expected = lists(&expected, 4);
        assert_eq!(texts_list.len(), expected.len(), "{name}");
        let (mut n_tokens, mut seconds) = (0, 0.0);
        for (i, (text, expected)) in texts_list.iter().zip(expected).enumerate() {
            let start = Instant::now();
            let ours = tokenizer.encode(text, special);
            seconds += start.elapsed().as_secs_f64();
            let theirs = ids(expected);
            assert!(
                ours == theirs,
                "{name}, text {i} of {texts}: {}",
                difference(&tokenizer, text, &ours, &theirs)
            );
            assert!(tokenizer.decode(&ours, true) == *text, "{name}, text {i} of {texts} is not decoded");
            n_tokens += ours.len();
        }
        let megabytes = file.len() as f64 / 1e6;
        println!("{name}: {n_tokens} ids equal, {megabytes:.1} MB at {:.1} MB/s", megabytes / seconds);
    }
    texts_list.iter().map(|text| text.split(|&byte| byte == b'\n').count()).sum()
}

#[test]
fn source_code_as_other_implementations() {
    let lines = compare_with_others("code");
    println!("{lines} lines");
    assert!(lines >= 100_000, "{lines} lines");
}

#[test]
fn random_unicode_as_other_implementations() {
    let lines = compare_with_others("unicode");
    assert!(lines >= 10_000, "{lines} lines");
}

/// Seconds that this thread has had a processor, so that what else runs does not count; the clock's where the
/// system does not say.
fn clock(start: Instant) -> f64 {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = spent.split(' ').next().and_then(|spent| spent.parse::<u64>().ok());
    nanoseconds.map_or_else(|| start.elapsed().as_secs_f64(), |spent| spent as f64 / 1e9)
}

/// Best of so many runs, in seconds.
fn time(tokenizer: &Tokenizer, text: &[u8], runs: usize) -> f64 {
    let start = Instant::now();
    let once = || {
        let before = clock(start);
        std::hint::black_box(tokenizer.encode(text, Special::Parse));
        clock(start) - before
    };
    (0..runs).map(|_| once()).fold(f64::INFINITY, f64::min)
}

#[test]
fn repeated_characters_take_linear_time() {
    const MEGABYTE: usize = 1 << 20;
    // One of each rule.
    for (name, _) in ENCODED {
        let tokenizer = tokenizer(name);
        let mut slowest = (0.0, "");
        for unit in ["a", "7", " ", "\n", "=", "'", "<", "中", "\0", "é", " a", "\r\n"] {
            let text = unit.repeat(MEGABYTE / unit.len()).into_bytes();
            let mut seconds = time(&tokenizer, &text, 1);
            if seconds >= 1.0 {
                // Not when something else had the processor.
                seconds = time(&tokenizer, &text, 5);
            }
            assert!(seconds < 1.0, "{name}: 1 MB of {unit:?} took {seconds:.2} s");
            if seconds > slowest.0 {
                slowest = (seconds, unit);
            }
        }
        // From 2 MB on nothing fits into the caches, so that 4 is linear, 8 the power of 1.5 and 16 quadratic. Up
        // to three times, for something else may use the caches.
        let (seconds, unit) = slowest;
        let run = |megabytes| unit.repeat(megabytes * MEGABYTE / unit.len()).into_bytes();
        let (short, long) = (run(2), run(8));
        let mut ratio = f64::INFINITY;
        for _ in 0..3 {
            ratio = ratio.min(time(&tokenizer, &long, 1) / time(&tokenizer, &short, 2));
            if ratio < 7.0 {
                break;
            }
        }
        println!(
            "{name}: slowest is {unit:?}, {seconds:.3} s for 1 MB, and 8 MB take {ratio:.1} times as long as 2"
        );
        assert!(ratio < 7.0, "{name}: 8 MB of {unit:?} took {ratio:.1} times as long as 2 MB");
    }
}

#[test]
fn any_bytes_come_back() {
    let mut random = Random(1);
    for name in VECTORS.into_iter().chain(["gemma3", "llama3", "qwen3"]) {
        let tokenizer = tokenizer(name);
        let (alphabet, without): (Vec<u8>, Vec<u8>) = (0..=255).partition(|&byte| {
            let ids = tokenizer.encode([byte], Special::Plain);
            tokenizer.decode(&ids, false) == [byte]
        });
        // Bytes that UTF-8 never uses, those of unassigned planes, and some controls.
        let may_lack = |byte| {
            matches!(byte, 0xC0 | 0xC1 | 0xF1 | 0xF2 | 0xF5..) || (byte < b' ' && !(9..14).contains(&byte))
        };
        assert!(
            without.iter().all(|&byte| may_lack(byte) || (name, byte) == ("falcon", 0x0B)),
            "{name}: {without:x?}"
        );
        for _ in 0..2000 {
            let text: Vec<u8> =
                (0..random.below(60)).map(|_| alphabet[random.below(alphabet.len())]).collect();
            let ids = tokenizer.encode(&text, Special::Plain);
            assert_eq!(tokenizer.decode(&ids, true), text, "{name}");
        }
    }
}

#[test]
fn streams_say_what_whole_decoding_says() {
    let mut random = Random(2);
    for name in VECTORS.into_iter().chain(["gemma3"]) {
        let tokenizer = tokenizer(name);
        for round in 0..2000 {
            let special = round % 2 == 0;
            let ids: Vec<u32> =
                (0..random.below(30)).map(|_| random.below(tokenizer.vocab_len()) as u32).collect();
            let mut stream = tokenizer.stream_from_start(special);
            let mut text = String::new();
            for &id in &ids {
                text.push_str(stream.push(id));
            }
            text.push_str(stream.finish());
            assert_eq!(text, String::from_utf8_lossy(&tokenizer.decode(&ids, special)), "{name}: {ids:?}");
        }
    }
}

#[test]
fn control_tokens_only_where_asked_for() {
    for (name, piece) in [
        ("qwen2", "<|im_end|>"),
        ("llama-bpe", "<|eot_id|>"),
        ("gpt-2", "<|endoftext|>"),
        ("llama-spm", "</s>"),
        ("gemma3", "<end_of_turn>"),
        ("starcoder", "<fim_prefix>"),
        ("deepseek-coder", "<｜fim▁hole｜>"),
        ("deepseek-coder", "<|EOT|>"),
    ] {
        let tokenizer = tokenizer(name);
        let id = tokenizer.id_of(piece).unwrap_or_else(|| panic!("{name} has no {piece}"));
        let text = format!("a {piece} b");
        let plain = tokenizer.encode(&text, Special::Plain);
        let parsed = tokenizer.encode(&text, Special::Parse);
        assert!(!plain.contains(&id), "{name}: {piece} in {plain:?}");
        assert_eq!(parsed.iter().filter(|&&token| token == id).count(), 1, "{name}: {piece} in {parsed:?}");
        assert_eq!(tokenizer.decode(&plain, false), text.as_bytes(), "{name}");
        assert_eq!(tokenizer.decode(&parsed, true), text.as_bytes(), "{name}");
        assert_eq!(tokenizer.decode(&parsed, false).len(), text.len() - piece.len(), "{name}");
        assert!(tokenizer.is_control(id) && tokenizer.piece(id, false).is_empty());
        assert_eq!(tokenizer.piece(id, true), piece.as_bytes());
    }
}

#[test]
fn roles_of_real_vocabularies() {
    let pieces = |tokenizer: &Tokenizer| -> Vec<String> {
        let piece = |&id: &u32| String::from_utf8_lossy(tokenizer.piece(id, true)).into_owned();
        tokenizer.eog_ids().iter().map(piece).collect()
    };
    let qwen = tokenizer("qwen3");
    let end = ["<|endoftext|>", "<|im_end|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"];
    assert_eq!(pieces(&qwen), end);
    assert!(end.iter().all(|piece| qwen.is_eog(qwen.id_of(piece).expect("listed above"))));
    let fim = qwen.fim();
    assert_eq!((fim.prefix, fim.middle, fim.suffix), (Some(151_659), Some(151_660), Some(151_661)));
    assert_eq!((fim.pad, fim.repo, fim.sep), (Some(151_662), Some(151_663), Some(151_664)));

    let starcoder = tokenizer("starcoder");
    let fim = starcoder.fim();
    assert_eq!((fim.prefix, fim.middle, fim.suffix, fim.pad), (Some(1), Some(2), Some(3), Some(4)));

    let deepseek = tokenizer("deepseek-coder");
    let fim = deepseek.fim();
    let id = |piece| deepseek.id_of(piece);
    assert_eq!(fim.prefix, id("<｜fim▁begin｜>"));
    assert_eq!((fim.suffix, fim.middle), (id("<｜fim▁hole｜>"), id("<｜fim▁end｜>")));
    assert_eq!(pieces(&deepseek), ["<｜end▁of▁sentence｜>", "<|EOT|>"]);

    let llama = tokenizer("llama-bpe");
    assert_eq!(pieces(&llama), ["<|end_of_text|>", "<|eot_id|>"]);
    assert_eq!(llama.encode_prompt("hi", Special::Plain)[0], 128_000);
    let gemma = tokenizer("gemma3");
    assert_eq!(pieces(&gemma), ["<eos>", "<end_of_turn>"]);
    assert_eq!(tokenizer("llama-spm").encode_prompt("", Special::Plain), [1]);
}
