//! Real chat templates against Python's jinja2: every template of a folder, every conversation of
//! `tests/chat/conversations.json`, byte for byte.
//!
//! `tests/chat/render.py TEMPLATES OUT` writes the expected renderings; `$CCHAHA_TEST_DATA/chat` is its OUT
//! (`target/test-data/chat` when the variable is not set).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cchaha::chat::{ChatError, ChatTemplate, Message};
use serde_json::{Map, Value};

#[derive(serde::Deserialize)]
struct Expected {
    clock_unix_s: i64,
    bos_token: String,
    eos_token: String,
    conversations: Vec<Conversation>,
    renderings: BTreeMap<String, BTreeMap<String, Rendering>>,
}

#[derive(serde::Deserialize)]
struct Conversation {
    name: String,
    messages: Vec<Message>,
    add_generation_prompt: bool,
    tools: Option<Value>,
    documents: Option<Value>,
    #[serde(default)]
    extra: Map<String, Value>,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Rendering {
    Text { text: String },
    Error { error: String, refused: bool },
}

fn data_dir() -> PathBuf {
    match std::env::var_os("CCHAHA_TEST_DATA") {
        Some(dir) => PathBuf::from(dir).join("chat"),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-data/chat"),
    }
}

/// Standing still where `render.py` stops its own: 2024-07-06 14:05:09 UTC.
const CLOCK_UNIX_S: i64 = 1_720_274_709;

/// Failures of jinja2 where we render: (words of its error, why).
const LENIENT: &[(&str, &str)] = &[
    ("'NoneType' object is not iterable", "the engine loops over none as over an empty list"),
    ("Object of type generator is not JSON serializable", "its filters return lists where jinja2's are lazy"),
];

const ESCAPED: &str =
    "`text|safe + other` escapes HTML in jinja2, against the template's intent; here it never does";
const METHOD: &str = "`schema.items` without a call is a Python method there and the schema's key here";
const NESTED: &str =
    "floats inside a printed list have no exponent padding; printed alone or by tojson they are equal";

/// What differs from jinja2: template, conversation, why. A row that no longer differs fails the test too.
const DIFFERENT: &[(&str, &str, &str)] = &[
    ("ByteDance-Seed-OSS.jinja", "tool_call_of_far_floats_in_a_list", NESTED),
    ("CohereForAI-c4ai-command-r-plus-tool_use.jinja", "tool_calls", METHOD),
    ("LFM2.5-8B-A1B.jinja", "tool_call_of_far_floats_in_a_list", NESTED),
    ("meetkai-functionary-medium-v3.1.jinja", "tool_calls", ESCAPED),
    ("meetkai-functionary-medium-v3.1.jinja", "tool_calls_as_text", ESCAPED),
    ("meetkai-functionary-medium-v3.1.jinja", "tools", ESCAPED),
    ("openbmb-MiniCPM5-1B.jinja", "tool_call_of_far_floats_in_a_list", NESTED),
];

/// `None` when the two agree: the same text, the same refusal, a failure on both sides, or known lenience.
fn difference(expected: &Rendering, ours: &Result<String, ChatError>) -> Option<String> {
    match (expected, ours) {
        (Rendering::Text { text }, Ok(ours)) if text == ours => None,
        (Rendering::Text { text }, Ok(ours)) => {
            let at = text.bytes().zip(ours.bytes()).take_while(|(a, b)| a == b).count();
            let tail =
                |s: &str| String::from_utf8_lossy(&s.as_bytes()[at..(at + 60).min(s.len())]).into_owned();
            Some(format!("byte {at}: jinja2 has {:?}, we have {:?}", tail(text), tail(ours)))
        }
        (Rendering::Text { .. }, Err(error)) => Some(format!("jinja2 renders it, we do not: {error}")),
        (Rendering::Error { error, refused: true }, Err(ChatError::Refused { message }))
            if error == message =>
        {
            None
        }
        (
            Rendering::Error { refused: false, .. },
            Err(ChatError::Failed { .. } | ChatError::Syntax { .. }),
        ) => None,
        (Rendering::Error { error, .. }, Err(ours)) => Some(format!("jinja2 says {error:?}, we say {ours}")),
        (Rendering::Error { error, refused: false }, Ok(_))
            if LENIENT.iter().any(|(e, _)| error.contains(e)) =>
        {
            None
        }
        (Rendering::Error { error, .. }, Ok(_)) => Some(format!("jinja2 fails with {error:?}, we render it")),
    }
}

#[test]
fn real_templates_render_as_in_jinja2() {
    let dir = data_dir();
    let read = |path: PathBuf| {
        std::fs::read_to_string(&path).unwrap_or_else(|e| {
            panic!("{}: {e}; write it with tests/chat/render.py TEMPLATES {}", path.display(), dir.display())
        })
    };
    let expected: Expected = serde_json::from_str(&read(dir.join("expected.json"))).expect("expected.json");
    assert_eq!(expected.clock_unix_s, CLOCK_UNIX_S);
    assert!(expected.renderings.len() >= 60, "only {} templates", expected.renderings.len());
    let (mut equal_texts, mut equal_errors, mut lenient) = (0, 0, 0);
    let mut differences = Vec::new();
    let mut stale = Vec::new();
    for (file, renderings) in &expected.renderings {
        let source = read(dir.join("templates").join(file));
        let template =
            ChatTemplate::with_clock(&source, &expected.bos_token, &expected.eos_token, || CLOCK_UNIX_S);
        for conversation in &expected.conversations {
            let mut extra = conversation.extra.clone();
            extra.extend(conversation.tools.clone().map(|tools| ("tools".to_owned(), tools)));
            extra.extend(conversation.documents.clone().map(|documents| ("documents".to_owned(), documents)));
            let ours = template.as_ref().map_err(Clone::clone).and_then(|template| {
                template.render(&conversation.messages, conversation.add_generation_prompt, &extra.into())
            });
            let rendering = &renderings[&conversation.name];
            let known = DIFFERENT.iter().any(|(f, c, _)| f == file && c == &conversation.name);
            match difference(rendering, &ours) {
                Some(what) if !known => differences.push(format!("{file} / {}: {what}", conversation.name)),
                None if known => stale.push(format!("{file} / {}", conversation.name)),
                Some(_) => {}
                None if matches!(rendering, Rendering::Text { .. }) => equal_texts += 1,
                None if ours.is_ok() => lenient += 1,
                None => equal_errors += 1,
            }
        }
    }
    let total = expected.renderings.len() * expected.conversations.len();
    eprintln!(
        "of {total}: {equal_texts} equal texts, {equal_errors} errors on both sides, {lenient} rendered here only, {} different",
        DIFFERENT.len()
    );
    assert!(stale.is_empty(), "no longer different, remove from DIFFERENT:\n{}", stale.join("\n"));
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}
