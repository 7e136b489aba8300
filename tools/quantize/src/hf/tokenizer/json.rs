//! tokenizer.json, as the `tokenizers` library writes it: BPE over bytes, or SentencePiece's with byte fallback.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{Added, Adds, MAX_BYTES, NEVER_MADE, Token, Vocab, kind, pre};
use crate::exit::Result;
use crate::hf::damaged;
use crate::hf::json::{excerpt, parse, read as read_file};

/// Enough to know which kind of model the file holds.
#[derive(Deserialize)]
struct Outline {
    model: Kind,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Line(String),
    Pair(String, String),
}

impl Merge {
    fn pair(&self) -> Option<(&str, &str)> {
        match self {
            Merge::Line(line) => line.split_once(' '),
            Merge::Pair(left, right) => Some((left, right)),
        }
    }
}

pub(super) fn read(path: &Path, rows: usize) -> Result<Vocab> {
    let outline: Option<Outline> = parse(path, MAX_BYTES)?;
    if let Some(kind) = outline.and_then(|outline| outline.model.kind).filter(|kind| kind != "BPE") {
        return Err(damaged(path, format_args!("holds a {kind} model, supported is only BPE")));
    }
    let Some(bytes) = read_file(path, MAX_BYTES)? else { return Err(damaged(path, "is missing")) };
    let file: File = serde_json::from_slice(&bytes)
        .map_err(|error| damaged(path, format_args!("is no tokenizer as it should be: {error}")))?;
    drop(bytes);
    let model = &file.model;
    for (name, affix) in [
        ("continuing_subword_prefix", &model.continuing_subword_prefix),
        ("end_of_word_suffix", &model.end_of_word_suffix),
    ] {
        if affix.as_ref().is_some_and(|affix| !affix.is_empty()) {
            return Err(damaged(path, format_args!("has a {name}, which GGUF cannot express")));
        }
    }
    let mut vocab = match pre::recognize(path, &file.normalizer, &file.pre_tokenizer, model.ignore_merges)? {
        pre::Family::Bytes { name } => {
            let mut vocab = Vocab::new("gpt2", name, rows);
            vocab.merges = merges(path, model)?;
            fill(path, &mut vocab, model, |_| (kind::NORMAL, 0.0))?;
            vocab
        }
        pre::Family::SentencePiece { space_prefix } => {
            let mut vocab = Vocab::new("llama", "default", rows);
            vocab.add_space_prefix = Some(space_prefix);
            let scores = scores(path, model)?;
            fill(path, &mut vocab, model, |text| {
                let is_byte =
                    model.byte_fallback && text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
                match model.unk_token.as_deref() == Some(text) {
                    true => (kind::UNKNOWN, NEVER_MADE),
                    false if is_byte => (kind::BYTE, NEVER_MADE),
                    false => (kind::NORMAL, scores.get(text).copied().unwrap_or(NEVER_MADE)),
                }
            })?;
            vocab
        }
    };
    vocab.adds = adds(&file.post_processor);
    file.added_tokens.into_iter().for_each(|token| vocab.add(token));
    Ok(vocab)
}

/// Puts every token in its place.
fn fill(path: &Path, vocab: &mut Vocab, model: &Model, describe: impl Fn(&str) -> (i32, f32)) -> Result {
    for (text, &id) in &model.vocab {
        let rows = vocab.tokens.len();
        let Some(slot) = vocab.tokens.get_mut(id as usize) else {
            return Err(damaged(
                path,
                format_args!("gives {text:?} the id {id}, but the model has {rows} embeddings"),
            ));
        };
        if let Some(other) = slot {
            return Err(damaged(path, format_args!("gives {text:?} and {:?} the same id, {id}", other.text)));
        }
        let (kind, score) = describe(text);
        *slot = Some(Token { text: text.clone(), kind, score });
    }
    Ok(())
}

/// Merges as GGUF writes them, where a space parts the two sides.
fn merges(path: &Path, model: &Model) -> Result<Vec<String>> {
    let line = |(rank, merge): (usize, &Merge)| match merge.pair() {
        Some((left, right)) if !left.contains(' ') && !right.contains(' ') => Ok(format!("{left} {right}")),
        _ => Err(damaged(path, format_args!("has a merge {rank} that is not two tokens without spaces"))),
    };
    model.merges.iter().enumerate().map(line).collect()
}

/// Scores that merge in the order of the ranks: SentencePiece merges what makes the token with the highest score.
fn scores(path: &Path, model: &Model) -> Result<HashMap<String, f32>> {
    let mut scores = HashMap::new();
    for (rank, merge) in model.merges.iter().enumerate() {
        let Some((left, right)) = merge.pair() else {
            return Err(damaged(path, format_args!("has a merge {rank} that is not two tokens")));
        };
        scores.entry(format!("{left}{right}")).or_insert(-(rank as f32));
    }
    Ok(scores)
}

/// Whether the text of a sequence stands between tokens of its own.
fn adds(post_processor: &Value) -> Adds {
    let inner = post_processor.get("processors").and_then(Value::as_array).map_or(&[][..], |list| list);
    let is_template =
        |value: &&Value| value.get("type").and_then(Value::as_str) == Some("TemplateProcessing");
    let template = inner.iter().chain([post_processor]).find(is_template);
    let Some(single) = template.and_then(|template| template.get("single")?.as_array()) else {
        return Adds { bos: Some(false), eos: Some(false) };
    };
    let is_special = |piece: Option<&Value>| piece.is_some_and(|piece| piece.get("SpecialToken").is_some());
    Adds { bos: Some(is_special(single.first())), eos: Some(is_special(single.last())) }
}

/// For messages about parts of the file.
pub(super) fn unsupported(path: &Path, part: &str, value: &Value, supported: &str) -> crate::exit::Failure {
    damaged(path, format_args!("has the {part} {}; supported are {supported}", excerpt(value)))
}
