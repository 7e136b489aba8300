//! Chat templates: a model file's own Jinja program turns a conversation into the prompt text it was trained on.
//!
//! The environment is the one Hugging Face transformers defines for `apply_chat_template`, because that is what
//! template authors test with: `trim_blocks` and `lstrip_blocks` on, no escaping, `break` and `continue`, Python's
//! string and dict methods, a `tojson` that is Python's `json.dumps`, `raise_exception(text)`,
//! `strftime_now(format)`, and `{% generation %}` marks that print their body. Always defined: `messages`,
//! `add_generation_prompt`, `bos_token`, `eos_token`, and `tools` and `documents` (none unless given).
//!
//! A template is a program from an untrusted file. It sees nothing but these variables, and its work is paid
//! from [`FUEL`], so that it can neither run for ever nor fill the memory.

mod generation;
mod json;
mod python;
mod time;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value};
use serde::{Deserialize, Serialize};
use serde_json::Map;

/// What one rendering may cost. One unit pays for one template instruction or 64 bytes of new data, so a
/// rendering touches at most 256 MiB; a conversation of 1 MB spends a few per cent of it.
pub const FUEL: u64 = 4 << 20;

/// Longest template source that is compiled, in bytes; the longest in use are about 30 KB.
pub const MAX_SOURCE_BYTES: usize = 1 << 20;

/// Bytes of stack of the thread a template runs on. Nested lists are dropped recursively, and [`FUEL`] buys a
/// hostile template about [`FUEL`] / 6 levels; the pages are only reserved, and used by nothing else.
const STACK_BYTES: usize = 512 << 20;

/// Longest time one rendering may take. Only a template that defeats [`FUEL`] gets this far: the engine walks
/// lists that hold themselves several times, `x = [x, x]` over and over, in exponential time free of charge.
/// Its thread cannot be stopped and is abandoned. Real templates take milliseconds.
const DEADLINE: Duration = Duration::from_secs(3);

/// One turn of a conversation, with exactly the keys the template will see, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`, or what else the template knows.
    pub role: String,
    /// Everything else: `content`, and where used `tool_calls`, `tool_call_id`, `name`, `reasoning_content`.
    #[serde(flatten)]
    pub fields: Map<String, serde_json::Value>,
}

impl Message {
    /// A message of plain text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), fields: Map::new() }.with("content", content.into())
    }

    /// The same message with one more field.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<serde_json::Value>) -> Message {
        self.fields.insert(key.into(), value.into());
        self
    }
}

/// Why there is no prompt. Lines are those of the template's source, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// The model file carries no template.
    #[error(
        "the model file has no chat template (tokenizer.chat_template); \
         give one with --chat-template FILE, or use `complete` for plain continuation"
    )]
    Missing,
    /// The source is longer than [`MAX_SOURCE_BYTES`].
    #[error(
        "the chat template is {bytes} bytes long, and at most {MAX_SOURCE_BYTES} are accepted; \
         give another with --chat-template FILE"
    )]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The source does not compile.
    #[error(
        "the chat template does not compile, line {line}: {reason}; give another with --chat-template FILE"
    )]
    Syntax {
        /// Line of the fault, 0 when unknown.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// The template called `raise_exception`.
    #[error("the chat template refuses this conversation: {message}")]
    Refused {
        /// The template's own words.
        message: String,
    },
    /// The template failed on this conversation.
    #[error("the chat template failed on this conversation, line {line}: {reason}")]
    Failed {
        /// Line of the fault, 0 when unknown.
        line: usize,
        /// What went wrong there.
        reason: String,
    },
    /// The rendering used up [`FUEL`].
    #[error("the chat template was stopped: it did more work than any conversation needs, and may not end")]
    Endless,
    /// The extra variables are not a JSON object.
    #[error("the extra variables of a chat template must be a JSON object of names and values")]
    NotVariables,
    /// An extra variable has the name of one the conversation sets.
    #[error("the chat template variable `{name}` is set by the conversation itself; give it another name")]
    Reserved {
        /// The variable.
        name: String,
    },
    /// The operating system gave no thread to run the template on.
    #[error("the chat template could not run: {reason}")]
    Thread {
        /// The system's words.
        reason: String,
    },
}

/// Where `strftime_now` takes the time from: seconds since 1970-01-01 00:00:00 UTC.
pub type Clock = fn() -> i64;

/// A compiled chat template with the special tokens of its model.
#[derive(Debug)]
pub struct ChatTemplate {
    env: Arc<Environment<'static>>,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Compiles `source`; `bos` and `eos` are the texts of the model's special tokens, empty where it has none.
    /// `strftime_now` reads the system clock, in UTC.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<ChatTemplate, ChatError> {
        ChatTemplate::with_clock(source, bos, eos, system_clock)
    }

    /// Like [`ChatTemplate::new`], from what the model file has, which may be nothing.
    pub fn of_model(source: Option<&str>, bos: &str, eos: &str) -> Result<ChatTemplate, ChatError> {
        ChatTemplate::new(source.ok_or(ChatError::Missing)?, bos, eos)
    }

    /// Like [`ChatTemplate::new`], with another clock for `strftime_now`.
    pub fn with_clock(source: &str, bos: &str, eos: &str, clock: Clock) -> Result<ChatTemplate, ChatError> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(ChatError::TooLong { bytes: source.len() });
        }
        let mut env = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        env.set_syntax(syntax.map_err(|e| syntax_error(&e))?);
        env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        env.set_fuel(Some(FUEL));
        env.set_unknown_method_callback(python::method);
        env.add_test("iterable", python::is_iterable);
        env.add_filter("indent", python::indent);
        env.add_filter("string", python::string);
        env.set_formatter(python::print);
        env.add_filter("tojson", json::tojson);
        env.add_function("raise_exception", raise_exception);
        env.add_function("strftime_now", move |format: &str| time::strftime(clock(), format));
        let source = generation::rewrite(source);
        let env = on_own_thread(move || {
            env.add_template_owned("chat", source).map_err(|e| syntax_error(&e))?;
            Ok(env)
        })?;
        Ok(ChatTemplate { env: Arc::new(env), bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The prompt for a conversation. `add_generation_prompt` ends it with the opening of an assistant turn.
    /// `extra` is null or an object of further variables, `tools` and `documents` and what the template
    /// documents, for instance `enable_thinking`.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        extra: &serde_json::Value,
    ) -> Result<String, ChatError> {
        let extra = match extra {
            serde_json::Value::Null => &Map::new(),
            serde_json::Value::Object(variables) => variables,
            _ => return Err(ChatError::NotVariables),
        };
        let mut context = BTreeMap::from([
            ("messages", json::value_of(messages)),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("bos_token", Value::from(self.bos.as_str())),
            ("eos_token", Value::from(self.eos.as_str())),
        ]);
        if let Some(name) = context.keys().find(|name| extra.contains_key(**name)) {
            return Err(ChatError::Reserved { name: (*name).to_owned() });
        }
        context.extend(["tools", "documents"].map(|name| (name, Value::from(()))));
        context.extend(extra.iter().map(|(name, value)| (name.as_str(), json::value_of(value))));
        let context = Value::from(context);
        let env = Arc::clone(&self.env);
        on_own_thread(move || {
            let template = env.get_template("chat").map_err(|e| syntax_error(&e))?;
            template.render(context).map_err(|e| render_error(&e))
        })
    }
}

/// Runs `work` on a thread of its own, with [`STACK_BYTES`] of stack, for at most [`DEADLINE`].
fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ChatError> + Send + 'static,
) -> Result<T, ChatError> {
    let (sender, receiver) = mpsc::channel();
    let builder = thread::Builder::new().name("chat-template".to_owned()).stack_size(STACK_BYTES);
    // Nobody listens any more when the deadline has passed; then the result is of no use.
    let spawned = builder.spawn(move || drop(sender.send(work())));
    spawned.map_err(|error| ChatError::Thread { reason: error.to_string() })?;
    receiver.recv_timeout(DEADLINE).unwrap_or_else(|error| match error {
        RecvTimeoutError::Timeout => Err(ChatError::Endless),
        RecvTimeoutError::Disconnected => {
            Err(ChatError::Thread { reason: "the template engine panicked".to_owned() })
        }
    })
}

fn system_clock() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
    }
}

/// The text given to `raise_exception`, carried through the engine as the source of its error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Refusal(message)))
}

fn syntax_error(error: &Error) -> ChatError {
    ChatError::Syntax { line: error.line().unwrap_or(0), reason: reason(error) }
}

fn render_error(error: &Error) -> ChatError {
    // An error inside a macro or a filter is the source of the one that arrives here.
    let mut link: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = link {
        if let Some(refusal) = current.downcast_ref::<Refusal>() {
            return ChatError::Refused { message: refusal.0.clone() };
        }
        if current.downcast_ref::<Error>().is_some_and(|e| e.kind() == ErrorKind::OutOfFuel) {
            return ChatError::Endless;
        }
        link = current.source();
    }
    ChatError::Failed { line: error.line().unwrap_or(0), reason: reason(error) }
}

/// The engine's words without its source excerpt.
fn reason(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

#[cfg(test)]
mod tests;
