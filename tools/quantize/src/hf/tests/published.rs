//! Published tokenizers, where tests/run.sh has fetched them.

use std::fs;

use cchaha::gguf::Metadata;
use cchaha::text::{Special, Tokenizer};
use tempfile::TempDir;

use super::*;

/// A file among the test data, or a line that says it is not there, which is an error in CI.
fn material(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("CCHAHA_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-data"), PathBuf::from);
    let path = root.join(name);
    if path.is_file() {
        return Some(path);
    }
    let problem = format!("{} is missing; tests/run.sh fetches it", path.display());
    assert!(std::env::var_os("CI").is_none(), "{problem}");
    eprintln!("skipped: {problem}");
    None
}

/// What the tokenizer.json of this family becomes in a model of `rows` embeddings.
fn tokenizer(family: &str, rows: usize) -> Option<Metadata> {
    let json = material(&format!("tokenizer/{family}.tokenizer.json"))?;
    let folder = TempDir::new().expect("a folder");
    fs::copy(json, folder.path().join("tokenizer.json")).expect("a copy");
    let mut metadata = Metadata::new();
    let nothing = Object::default();
    tokenizer::convert(folder.path(), &nothing, &nothing, rows, &mut metadata)
        .unwrap_or_else(|error| panic!("{family}: {}", error.message()));
    Some(metadata)
}

/// Qwen3 has Qwen2.5's tokenizer and four tokens more, which are holes there.
#[test]
fn qwen_is_what_its_gguf_file_says() {
    const NEW: std::ops::RangeInclusive<usize> = 151_665..=151_668;
    let rows = 151_936;
    let Some(found) = tokenizer("qwen3", rows) else { return };
    let Some(path) = material("models/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf") else { return };
    let gguf = Gguf::open(&path).expect("a model");
    let expected = gguf.metadata();
    for key in ["tokenizer.ggml.model", "tokenizer.ggml.pre"] {
        assert_eq!(found.get(key), expected.get(key), "{key}");
    }
    let strings = |metadata: &Metadata, key: &str| -> Vec<String> {
        let list = metadata.require_strings(key).expect("strings");
        list.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    };
    let merges = "tokenizer.ggml.merges";
    assert!(strings(&found, merges) == strings(expected, merges), "merges differ");
    let types =
        |metadata: &Metadata| metadata.require_i32s("tokenizer.ggml.token_type").expect("types").into_owned();
    let tokens = |metadata: &Metadata| -> Vec<(String, i32)> {
        let tokens = strings(metadata, "tokenizer.ggml.tokens");
        // Makers of files do not agree on the type of a hole.
        let kind =
            |(text, kind): (String, i32)| if text.starts_with("[PAD") { (text, 5) } else { (text, kind) };
        tokens.into_iter().zip(types(metadata)).map(kind).collect()
    };
    let (found, expected) = (tokens(&found), tokens(expected));
    assert_eq!((found.len(), expected.len()), (rows, rows));
    for (id, pair) in found.iter().zip(&expected).enumerate().filter(|(id, _)| !NEW.contains(id)) {
        assert_eq!(pair.0, pair.1, "{id}");
    }
    assert!({ NEW }.all(|id| expected[id].0.starts_with("[PAD")));
}

/// The ids that the `tokenizers` library gives for whole source files and random characters, as tests/tokenizer.rs
/// has them: a list per text, preceded by its length.
#[test]
fn text_becomes_the_ids_that_the_published_tokenizers_give() {
    for (family, rows) in [("qwen3", 151_936), ("llama3", 128_256), ("gemma3", 262_144)] {
        let Some(metadata) = tokenizer(family, rows) else { continue };
        let tokenizer = Tokenizer::from_gguf(&metadata).expect("a tokenizer");
        for kind in ["code", "unicode"] {
            let (Some(texts), Some(ids)) =
                (material(&format!("tokenizer/{kind}")), material(&format!("tokenizer/{family}.{kind}.ids")))
            else {
                continue;
            };
            let (texts, ids) = (fs::read(texts).expect("texts"), fs::read(ids).expect("ids"));
            let (texts, ids) = (lists(&texts, 1), lists(&ids, 4));
            assert_eq!(texts.len(), ids.len());
            // A tenth: tests/tokenizer.rs has the time for all of them.
            for (text, ids) in texts.iter().zip(&ids).step_by(10) {
                let found: Vec<u8> =
                    tokenizer.encode(text, Special::Plain).into_iter().flat_map(u32::to_le_bytes).collect();
                assert!(
                    found == *ids,
                    "{family}: {:?}",
                    String::from_utf8_lossy(text).chars().take(200).collect::<String>()
                );
            }
        }
    }
}

fn lists(mut bytes: &[u8], item_bytes: usize) -> Vec<&[u8]> {
    let mut lists = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk::<4>() {
        let (list, rest) = rest.split_at(u32::from_le_bytes(*len) as usize * item_bytes);
        lists.push(list);
        bytes = rest;
    }
    lists
}
