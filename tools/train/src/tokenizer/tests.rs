use std::collections::HashMap;
use std::io::BufWriter;
use std::path::PathBuf;

use cchaha::text::{Special, Tokenizer};

use super::*;

/// This workspace's own sources, one package a crate; every fifth file is held out.
fn own_sources() -> tempfile::TempDir {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    let mut folders =
        ["engine/src", "kernels/src", "tools/quantize/src", "tests"].map(|name| root.join(name)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "py") {
                files.push(path);
            }
        }
    }
    files.sort();
    assert!(files.len() > 100, "only {} files: the walk is broken", files.len());
    let folder = tempfile::tempdir().unwrap();
    let [mut train, mut heldout] =
        Split::ALL.map(|split| BufWriter::new(std::fs::File::create(split.path(folder.path())).unwrap()));
    for (i, path) in files.iter().enumerate() {
        let document = Document {
            language: "rust".to_owned(),
            package: format!("package-{}", i % 16),
            path: path.display().to_string(),
            text: String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned(),
        };
        let out = if i % 5 == 0 { &mut heldout } else { &mut train };
        corpus::write(out, &document).unwrap();
    }
    folder
}

/// The bytes of a file with these keys.
fn file(meta: &Metadata) -> Vec<u8> {
    let mut out = Vec::new();
    cchaha::gguf::write_to("tokenizer", &mut out, meta, &[], |_, _| Ok(())).unwrap();
    out
}

#[test]
fn vocabularies_of_real_code() {
    let folder = own_sources();
    let held_out: Vec<Document> =
        corpus::documents(folder.path(), Split::Heldout).unwrap().map(Result::unwrap).collect();
    let bytes: usize = held_out.iter().map(|document| document.text.len()).sum();
    let mut bytes_per_token = HashMap::new();
    for kind in [Kind::Hybrid, Kind::HybridShuffled, Kind::Bpe] {
        let mut heard = Vec::new();
        let meta = learn_from(folder.path(), kind, 4096, &mut |what, done, total| {
            assert!(done <= total);
            if heard.last().is_none_or(|last: &String| last != what) {
                heard.push(what.to_owned());
            }
        })
        .unwrap();
        assert!(heard.contains(&"joins".to_owned()), "{heard:?}");
        let again = learn_from(folder.path(), kind, 4096, &mut |_, _, _| ()).unwrap();
        assert!(file(&meta) == file(&again), "{kind:?} differs from one time to the next");

        let tokenizer = Tokenizer::from_gguf(&meta).unwrap();
        assert_eq!(tokenizer.vocab_len(), 4096);
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos()), (Some(0), Some(0), true));
        assert_eq!(tokenizer.fim().middle, Some(2));
        for (id, text) in (0..).zip(CONTROL) {
            assert_eq!(tokenizer.encode(text, Special::Parse), [id]);
        }
        let mut tokens = 0;
        for document in &held_out {
            let ids = tokenizer.encode(&document.text, Special::Plain);
            assert!(tokenizer.decode(&ids, false) == document.text.as_bytes(), "{kind:?}: {}", document.path);
            tokens += ids.len();
        }
        bytes_per_token.insert(format!("{kind:?}"), bytes as f64 / tokens as f64);
    }
    assert!(bytes_per_token["Hybrid"] > 1.1 * bytes_per_token["Bpe"], "{bytes_per_token:?}");
    assert!(bytes_per_token["Hybrid"] > bytes_per_token["HybridShuffled"], "{bytes_per_token:?}");
}

#[test]
fn what_cannot_be_learned_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let error = |n| {
        learn_from(folder.path(), Kind::Hybrid, n, &mut |_, _, _| ())
            .err()
            .map_or_else(String::new, |error| error.to_string())
    };
    assert!(error(4096).contains("train.docs"), "{}", error(4096));
    std::fs::write(Split::Train.path(folder.path()), "").unwrap();
    assert!(error(4096).contains("the corpus gives"), "{}", error(4096));
    assert!(error(100).contains("is too small"), "{}", error(100));
    std::fs::write(Split::Train.path(folder.path()), "{}\n").unwrap();
    assert!(error(4096).contains("at byte 0"), "{}", error(4096));
    let head = r#"{"language":"a","package":"b","path":"c","bytes":99}"#;
    std::fs::write(Split::Train.path(folder.path()), format!("{head}\nabc\n")).unwrap();
    assert!(error(4096).contains("ends inside a document"), "{}", error(4096));
}

/// Symbols, and whether each begins and ends a part.
type Defined = Vec<(u32, bool, bool)>;

/// The definition: count all pairs, join the most frequent (of equals the lowest), and again.
fn by_definition(words: &[(Defined, u64)], first: u32, n: usize) -> Vec<(u32, u32)> {
    let mut words = words.to_vec();
    let mut joins = Vec::new();
    for id in first..first + n as u32 {
        let mut counts: HashMap<(u32, u32, bool), u64> = HashMap::new();
        let pair = |left: (u32, bool, bool), right: (u32, bool, bool)| {
            let whole = left.1 && left.2 && right.1 && right.2;
            (!left.2 || whole).then_some((left.0, right.0, left.2))
        };
        for (word, count) in &words {
            for two in word.windows(2) {
                if let Some(pair) = pair(two[0], two[1]) {
                    *counts.entry(pair).or_default() += count;
                }
            }
        }
        let best = counts.into_iter().max_by_key(|&(pair, count)| (count, std::cmp::Reverse(pair)));
        let Some((best, 2..)) = best else { break };
        joins.push((best.0, best.1));
        for (word, _) in &mut words {
            let mut at = 0;
            while at + 1 < word.len() {
                if pair(word[at], word[at + 1]) == Some(best) {
                    word[at] = (id, word[at].1, word[at + 1].2);
                    word.remove(at + 1);
                }
                at += 1;
            }
        }
    }
    joins
}

#[test]
fn joins_follow_the_definition() {
    let mut state = 1_u64;
    let mut random = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    for parts in [false, true] {
        // Parts as words, or whole symbols and halves side by side.
        let words: Vec<(Defined, u64)> = (0..200)
            .map(|_| {
                let len = random(9) as usize;
                let word = (0..len).map(|i| {
                    let id = random(5) as u32;
                    let whole = random(4) > 0;
                    if parts {
                        (id + if whole { 0 } else { 5 }, whole, true)
                    } else {
                        (id, i == 0, i + 1 == len)
                    }
                });
                (word.collect(), random(50) + 1)
            })
            .collect();
        let mut own: Vec<Word> = words
            .iter()
            .map(|(word, count)| {
                if parts {
                    Word::of_parts(0, *count, word.iter().map(|&(id, whole, _)| (id, whole)))
                } else {
                    let ids: Vec<u32> = word.iter().map(|symbol| symbol.0).collect();
                    Word::part(0, *count, &ids)
                }
            })
            .collect();
        let found = learn(&mut own, 10, 120, usize::MAX, |_| 1, |_| ());
        let found: Vec<(u32, u32)> = found.iter().map(|pair| (pair.left, pair.right)).collect();
        let expected = by_definition(&words, 10, 120);
        assert!(expected.len() > 40);
        assert_eq!(found, expected, "parts {parts}");
    }
}
