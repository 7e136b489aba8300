//! The tokenizer's files as `tokenizer.ggml.*`: tokenizer.json or tokenizer.model, and what stands beside them.

mod json;
mod pre;
mod sentencepiece;

use std::path::{Path, PathBuf};

use cchaha::gguf::{Array, Metadata, Strings, Value};
use serde::Deserialize;

use super::damaged;
use super::json::Object;
use crate::exit::Result;

/// Numbers of `tokenizer.ggml.token_type`.
mod kind {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const USER_DEFINED: i32 = 4;
    pub(super) const UNUSED: i32 = 5;
    pub(super) const BYTE: i32 = 6;
}

/// The longest tokenizer file read; Gemma 3's, with its 262,144 tokens, has 33 MB.
const MAX_BYTES: u64 = 256 << 20;
/// The longest chat template read.
const MAX_TEMPLATE_BYTES: u64 = 4 << 20;

/// A vocabulary in GGUF's terms.
struct Vocab {
    /// `tokenizer.ggml.model`.
    model: &'static str,
    /// `tokenizer.ggml.pre`.
    pre: &'static str,
    /// One for each row of the embeddings.
    tokens: Vec<Option<Token>>,
    /// `left right` in order of rank, for byte-level BPE.
    merges: Vec<String>,
    /// Whether the file says that sequences begin and end with tokens of their own.
    adds: Adds,
    /// For SentencePiece.
    add_space_prefix: Option<bool>,
    remove_extra_whitespaces: Option<bool>,
}

struct Token {
    text: String,
    kind: i32,
    score: f32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Adds {
    bos: Option<bool>,
    eos: Option<bool>,
}

/// A token that was added to a trained vocabulary.
#[derive(Clone, Debug, Deserialize)]
struct Added {
    #[serde(default)]
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

/// Score of tokens that no merge makes, below all others.
const NEVER_MADE: f32 = -1e6;

/// Writes `tokenizer.ggml.*` and `tokenizer.chat_template`, and gives the files it read. `rows` is how many tokens the
/// model has embeddings for.
pub(super) fn convert(
    folder: &Path,
    config: &Object,
    generation: &Object,
    rows: usize,
    metadata: &mut Metadata,
) -> Result<Vec<PathBuf>> {
    let paths = ["tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"];
    let [model, json, tokenizer_config, special_map] = paths.map(|name| folder.join(name));
    let settings = Object::open(&tokenizer_config)?;
    let mut vocab = if model.exists() {
        sentencepiece::read(&model, rows)?
    } else if json.exists() {
        json::read(&json, rows)?
    } else {
        let problem = "has neither tokenizer.json nor tokenizer.model; get the tokenizer's files too";
        return Err(damaged(folder, problem));
    };
    if let Some(decoder) = settings.object("added_tokens_decoder")? {
        for (id, _) in decoder.iter() {
            let token = decoder.object(id)?.ok_or_else(|| decoder.missing(id))?;
            let id = id.parse().map_err(|_| decoder.error(id, "is no token id"))?;
            let content = token.str("content")?.ok_or_else(|| token.missing("content"))?.to_owned();
            vocab.add(Added { id, content, special: token.bool("special")?.unwrap_or(false) });
        }
    }
    if let Some(prefix) = settings.bool("add_prefix_space")?
        && vocab.model == "llama"
    {
        vocab.add_space_prefix.get_or_insert(prefix);
    }
    vocab.adds.bos = settings.bool("add_bos_token")?.or(vocab.adds.bos);
    vocab.adds.eos = settings.bool("add_eos_token")?.or(vocab.adds.eos);

    let specials = [&settings, &Object::open(&special_map)?];
    let roles = roles(&vocab, specials, config, generation)?;
    write(vocab, metadata);
    for (key, id) in roles {
        metadata.set(format!("tokenizer.ggml.{key}"), id);
    }
    chat_templates(folder, &settings, metadata)?;
    // What a reader would find wrong is said now, and not when the model is first run.
    cchaha::text::Tokenizer::from_gguf(metadata)
        .map_err(|error| damaged(folder, format_args!("has a tokenizer that cannot be used: {error}")))?;
    let read = [model, json, tokenizer_config, special_map];
    Ok(read.into_iter().filter(|path| path.exists()).collect())
}

impl Vocab {
    fn new(model: &'static str, pre: &'static str, rows: usize) -> Vocab {
        Vocab {
            model,
            pre,
            tokens: std::iter::repeat_with(|| None).take(rows).collect(),
            merges: Vec::new(),
            adds: Adds::default(),
            add_space_prefix: None,
            remove_extra_whitespaces: None,
        }
    }

    /// A token that was added later. Those the model has no embedding for cannot be used and are left out.
    fn add(&mut self, Added { id, content, special }: Added) {
        let Some(slot) = self.tokens.get_mut(id as usize) else {
            tracing::warn!(
                "added token {content:?} has id {id}, for which the model has no embedding; it is left out"
            );
            return;
        };
        let is_unknown =
            slot.as_ref().is_some_and(|token| token.kind == kind::UNKNOWN && token.text == content);
        let (kind, text) = match special || looks_special(&content) {
            true if is_unknown => (kind::UNKNOWN, content),
            true => (kind::CONTROL, content),
            // Text that is found before spaces are replaced by the mark that stands for them.
            false if self.model == "llama" => (kind::USER_DEFINED, content.replace('\u{2581}', " ")),
            false => (kind::USER_DEFINED, content),
        };
        *slot = Some(Token { text, kind, score: slot.as_ref().map_or(NEVER_MADE, |token| token.score) });
    }

    fn id_of(&self, text: &str) -> Option<u32> {
        let is_it = |token: &Option<Token>| token.as_ref().is_some_and(|token| token.text == text);
        self.tokens.iter().position(is_it).map(|id| id as u32)
    }
}

/// Whether a token marks structure by its looks: several families have such tokens without saying that they are special.
fn looks_special(text: &str) -> bool {
    let between = |start, end| text.len() > 4 && text.starts_with(start) && text.ends_with(end);
    between("<|", "|>")
        || between("<｜", "｜>")
        || between("<unused", ">")
        || ["<pad>", "<mask>"].contains(&text)
}

/// Ids by their keys in GGUF.
fn roles(
    vocab: &Vocab,
    specials: [&Object; 2],
    config: &Object,
    generation: &Object,
) -> Result<Vec<(&'static str, u32)>> {
    let mut found = Vec::new();
    for (role, key) in [
        ("bos", "bos_token_id"),
        ("eos", "eos_token_id"),
        ("unk", "unknown_token_id"),
        ("sep", "seperator_token_id"),
        ("pad", "padding_token_id"),
        ("mask", "mask_token_id"),
    ] {
        let mut id = None;
        for object in specials {
            id = id.or(named(object, &format!("{role}_token"))?.and_then(|text| vocab.id_of(&text)));
        }
        for object in [config, generation] {
            id = id.or(ids(object, &format!("{role}_token_id"))?.first().copied());
        }
        if role == "unk" && id.is_none() {
            let is_unknown =
                |token: &Option<Token>| token.as_ref().is_some_and(|token| token.kind == kind::UNKNOWN);
            id = vocab.tokens.iter().position(is_unknown).map(|id| id as u32);
        }
        found.extend(id.filter(|&id| (id as usize) < vocab.tokens.len()).map(|id| (key, id)));
    }
    // Others that end a generation: GGUF has two more places for them.
    let mut ends = ids(generation, "eos_token_id")?;
    ends.extend(ids(config, "eos_token_id")?);
    for key in ["eot_token_id", "eom_token_id"] {
        let is_new =
            |id: &&u32| (**id as usize) < vocab.tokens.len() && !found.iter().any(|(_, known)| known == *id);
        let Some(&id) = ends.iter().find(is_new) else { break };
        found.push((key, id));
    }
    Ok(found)
}

/// A token's text, given as such or as an object.
fn named(object: &Object, key: &str) -> Result<Option<String>> {
    Ok(match object.get(key) {
        Some(serde_json::Value::Object(_)) => object
            .object(key)?
            .map(|token| token.str("content").map(|text| text.map(str::to_owned)))
            .transpose()?
            .flatten(),
        _ => object.str(key)?.map(str::to_owned),
    })
}

/// An id or a list of ids.
fn ids(object: &Object, key: &str) -> Result<Vec<u32>> {
    let Some(serde_json::Value::Array(list)) = object.get(key) else {
        return Ok(object.u32(key)?.into_iter().collect());
    };
    let id = |value: &serde_json::Value| value.as_u64()?.try_into().ok();
    list.iter().map(id).collect::<Option<_>>().ok_or_else(|| object.error(key, "is no list of token ids"))
}

fn write(vocab: Vocab, metadata: &mut Metadata) {
    let Vocab { model, pre, tokens, merges, adds, .. } = vocab;
    let hole = |(id, token): (usize, Option<Token>)| {
        token.unwrap_or_else(|| Token { text: format!("[PAD{id}]"), kind: kind::UNUSED, score: NEVER_MADE })
    };
    let tokens: Vec<Token> = tokens.into_iter().enumerate().map(hole).collect();
    let strings = |list: Strings| Value::Array(Array::Strings(list));
    metadata.set("tokenizer.ggml.model", model.to_owned());
    metadata.set("tokenizer.ggml.pre", pre.to_owned());
    metadata.set("tokenizer.ggml.tokens", strings(tokens.iter().map(|token| &token.text).collect()));
    let kinds = tokens.iter().map(|token| token.kind).collect();
    metadata.set("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)));
    if model == "llama" {
        let scores = tokens.iter().map(|token| token.score).collect();
        metadata.set("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
    } else {
        metadata.set("tokenizer.ggml.merges", strings(merges.iter().collect()));
    }
    for (key, value) in [
        ("add_bos_token", adds.bos),
        ("add_eos_token", adds.eos),
        ("add_space_prefix", vocab.add_space_prefix),
        ("remove_extra_whitespaces", vocab.remove_extra_whitespaces),
    ] {
        value.map(|value| metadata.set(format!("tokenizer.ggml.{key}"), value));
    }
}

/// `tokenizer.chat_template`, and the others by their names.
fn chat_templates(folder: &Path, settings: &Object, metadata: &mut Metadata) -> Result {
    let path = folder.join("chat_template.jinja");
    if let Some(bytes) = super::json::read(&path, MAX_TEMPLATE_BYTES)? {
        let text = String::from_utf8(bytes).map_err(|_| damaged(&path, "is not UTF-8"))?;
        metadata.set("tokenizer.chat_template", text);
        return Ok(());
    }
    let Some(serde_json::Value::Array(list)) = settings.get("chat_template") else {
        settings.str("chat_template")?.map(|text| metadata.set("tokenizer.chat_template", text.to_owned()));
        return Ok(());
    };
    let mut names = Vec::new();
    for entry in list {
        let text = |key: &str| {
            let text = entry.get(key).and_then(|value| value.as_str());
            text.ok_or_else(|| settings.error("chat_template", format_args!("has an entry without {key:?}")))
        };
        let (name, template) = (text("name")?, text("template")?.to_owned());
        if name == "default" {
            metadata.set("tokenizer.chat_template", template);
        } else {
            metadata.set(format!("tokenizer.chat_template.{name}"), template);
            names.push(name);
        }
    }
    if !names.is_empty() {
        metadata.set("tokenizer.chat_templates", Value::Array(Array::Strings(names.iter().collect())));
    }
    Ok(())
}
