//! Which pre-tokenizer GGUF's readers should use, by the structure of the one in tokenizer.json.

use std::path::Path;

use serde_json::{Value, json};

use super::json::unsupported;
use crate::exit::Result;
use crate::hf::damaged;

/// The two kinds of vocabularies, told apart by how text gets into them.
pub(super) enum Family {
    /// Byte-level BPE; `tokenizer.ggml.pre`.
    Bytes { name: &'static str },
    /// SentencePiece's, with a mark for spaces.
    SentencePiece { space_prefix: bool },
}

/// The alternatives that all rules since GPT-4's share, around how they cut digits.
const GPT4_START: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|";
const GPT4_END: &str = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const EAST_ASIAN: &str = "[一-龥ࠀ-一가-퟿]+";
/// Letters of scripts with case, as DeepSeek LLM lists them.
const CASED: &str = "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
const WIDE_PUNCTUATION: &str = "\\s?[!-/:-~！-／：-～‘-‟　-。]+";

/// A stage that finds words by a pattern and keeps what lies between them.
fn split(pattern: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

fn digits(individual: bool) -> Value {
    json!({"type": "Digits", "individual_digits": individual})
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": use_regex})
}

/// Names and structures; names whose rules cut alike are there once.
fn rules() -> Vec<(&'static str, Vec<Value>)> {
    let gpt4 = |digits: &str| split(&format!("{GPT4_START}{digits}{GPT4_END}"));
    vec![
        ("gpt-2", vec![byte_level(true)]),
        ("starcoder", vec![digits(true), byte_level(true)]),
        ("llama-bpe", vec![gpt4(r"\p{N}{1,3}"), byte_level(false)]),
        ("qwen2", vec![gpt4(r"\p{N}"), byte_level(false)]),
        (
            "deepseek-coder",
            vec![
                split("[\r\n]"),
                split(r"\s?\p{L}+"),
                split(r"\s?\p{P}+"),
                split(EAST_ASIAN),
                digits(true),
                byte_level(false),
            ],
        ),
        (
            "deepseek-llm",
            vec![
                split("[\r\n]"),
                split(CASED),
                split(WIDE_PUNCTUATION),
                split(r"\s+$"),
                split(EAST_ASIAN),
                digits(true),
                byte_level(false),
            ],
        ),
        (
            "falcon",
            vec![
                json!({"type": "Punctuation", "behavior": "Contiguous"}),
                byte_level(true),
                digits(false),
                split("[0-9][0-9][0-9]"),
            ],
        ),
    ]
}

/// Which family and rule a file means.
pub(super) fn recognize(path: &Path, normalizer: &Value, pre: &Value, ignore_merges: bool) -> Result<Family> {
    let stages = stages(pre, "pretokenizers");
    if !stages.iter().any(|stage| type_of(stage) == "ByteLevel") {
        return sentence_piece(path, normalizer, pre);
    }
    // GGUF has no normalization: what NFC would change is tokenized as it stands.
    if !normalizer.is_null() && type_of(normalizer) != "NFC" {
        return Err(unsupported(path, "normalizer", normalizer, "none and NFC"));
    }
    let rules = rules();
    let Some((name, _)) = rules.iter().find(|(_, rule)| *rule == stages) else {
        let names: Vec<&str> = rules.iter().map(|rule| rule.0).collect();
        return Err(unsupported(path, "pre_tokenizer", pre, &names.join(", ")));
    };
    if ignore_merges && *name != "llama-bpe" {
        return Err(damaged(path, format_args!("sets ignore_merges, which GGUF's {name} rule does not")));
    }
    Ok(Family::Bytes { name })
}

/// SentencePiece as the library imitates it: spaces become a mark, once in front if there is a prefix.
fn sentence_piece(path: &Path, normalizer: &Value, pre: &Value) -> Result<Family> {
    let mark = "\u{2581}";
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": mark});
    let prepend = json!({"type": "Prepend", "prepend": mark});
    let normalizers = stages(normalizer, "normalizers");
    let by_normalizer = match normalizers.as_slice() {
        [] => None,
        [only] if *only == replace => Some(false),
        [first, second] if *first == prepend && *second == replace => Some(true),
        _ => {
            return Err(unsupported(
                path,
                "normalizer",
                normalizer,
                "a mark for spaces, with or without one in front",
            ));
        }
    };
    let by_pre = match type_of(pre) {
        // After spaces have been replaced it finds none.
        "" => by_normalizer,
        "Split" if by_normalizer.is_some() && pre["pattern"]["String"] == " " => by_normalizer,
        "Metaspace" if by_normalizer.is_none() && pre["replacement"] == mark => {
            match pre.get("prepend_scheme").and_then(Value::as_str) {
                Some("always" | "first") => Some(true),
                Some("never") => Some(false),
                _ => Some(pre["add_prefix_space"] != false),
            }
        }
        _ => None,
    };
    match by_pre {
        Some(space_prefix) => Ok(Family::SentencePiece { space_prefix }),
        None => Err(unsupported(
            path,
            "pre_tokenizer",
            pre,
            "ByteLevel, Metaspace, and none after a normalizer that marks spaces",
        )),
    }
}

/// The stages of a sequence, or the one there is, without what does not change where words are cut.
fn stages(value: &Value, list: &str) -> Vec<Value> {
    const NO_CUT: &[&str] = &["trim_offsets"];
    match value.get(list).and_then(Value::as_array) {
        // No published file has a sequence inside a sequence.
        Some(inner) => inner
            .iter()
            .flat_map(
                |stage| if stage.get(list).is_some() { vec![stage.clone()] } else { stages(stage, list) },
            )
            .collect(),
        None if value.is_null() => Vec::new(),
        None => {
            let mut stage = value.clone();
            if let Some(map) = stage.as_object_mut() {
                map.retain(|key, _| !NO_CUT.contains(&key.as_str()));
                // Files of old versions leave out what had one meaning only.
                if map.get("type").and_then(Value::as_str) == Some("ByteLevel") {
                    map.entry("use_regex").or_insert(true.into());
                }
            }
            vec![stage]
        }
    }
}

fn type_of(value: &Value) -> &str {
    value.get("type").and_then(Value::as_str).unwrap_or_default()
}
