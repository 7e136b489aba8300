//! What can be typed in a chat beside messages.

use std::path::Path;

use cchaha::chat::Message;

use super::Conversation;
use crate::exit::{Failure, Result};
use crate::input;
use crate::output::{DIM, plural};

/// What happens after a command.
pub(super) enum Next {
    /// The user's turn.
    Prompt,
    /// The model answers this.
    Answer(String),
    /// The model answers the last question once more.
    Again,
    /// The program ends.
    End,
}

type Action = fn(&str, &mut Conversation) -> Result<Next>;

/// A command: its name, what may follow it, what it does.
struct Command {
    name: &'static str,
    argument: &'static str,
    help: &'static str,
    run: Action,
}

const COMMANDS: [Command; 8] = [
    Command { name: "/help", argument: "", help: "show this list", run: help },
    Command { name: "/clear", argument: "", help: "forget the conversation", run: clear },
    Command {
        name: "/system",
        argument: "[TEXT]",
        help: "tell the model something first; without TEXT, nothing",
        run: system,
    },
    Command { name: "/regen", argument: "", help: "write the last answer again", run: regenerate },
    Command { name: "/stats", argument: "", help: "show speed and how full the context is", run: stats },
    Command { name: "/save", argument: "FILE", help: "write the conversation to a JSON file", run: save },
    Command { name: "/load", argument: "FILE", help: "go on with a saved conversation", run: load },
    Command { name: "/exit", argument: "", help: "end (also Ctrl-D)", run: exit },
];

/// Names of all commands, for completion.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|command| command.name)
}

/// Runs `text` if it is a command: a first word that begins with a slash, unless a second slash or a space makes it a path
/// or a comment. `//` in front of a message sends it with one slash.
pub(super) fn run(text: &str, chat: &mut Conversation) -> Option<Result<Next>> {
    if let Some(escaped) = text.strip_prefix("//") {
        return Some(Ok(Next::Answer(format!("/{escaped}"))));
    }
    if !text.starts_with('/') || text.contains('\n') {
        return None;
    }
    let (name, argument) = text.split_once(' ').unwrap_or((text.trim_end(), ""));
    Some(match COMMANDS.iter().find(|command| command.name == name) {
        Some(command) if command.argument == "FILE" && argument.trim().is_empty() => {
            Err(Failure::usage(format!("{name} needs a file name, as in {name} chat.json")))
        }
        Some(command) => (command.run)(argument.trim(), chat),
        None => Err(Failure::usage(format!(
            "there is no command {name}; /help lists them, and // in front sends a message that begins with /"
        ))),
    })
}

/// Side information goes to stderr, as in every other subcommand.
fn say(text: impl std::fmt::Display) -> Result<Next> {
    anstream::eprintln!("{DIM}{text}{DIM:#}");
    Ok(Next::Prompt)
}

fn help(_: &str, _: &mut Conversation) -> Result<Next> {
    for Command { name, argument, help, .. } in &COMMANDS {
        anstream::eprintln!("  {:<16} {help}", format!("{name} {argument}"));
    }
    anstream::eprintln!("  {:<16} go on in the next line", "...\\");
    anstream::eprintln!("  {:<16} begin and end a message of many lines", "\"\"\"");
    anstream::eprintln!("  {:<16} stop the answer", "Ctrl-C");
    Ok(Next::Prompt)
}

fn clear(_: &str, chat: &mut Conversation) -> Result<Next> {
    chat.clear();
    say("forgotten")
}

fn system(text: &str, chat: &mut Conversation) -> Result<Next> {
    chat.set_system(Some(text).filter(|text| !text.is_empty()).map(str::to_owned));
    say(if text.is_empty() { "no system message" } else { "system message set" })
}

fn regenerate(_: &str, _: &mut Conversation) -> Result<Next> {
    Ok(Next::Again)
}

fn stats(_: &str, chat: &mut Conversation) -> Result<Next> {
    if let Some(answer) = &chat.last {
        say(answer.summary())?;
    }
    let (used, context) = (chat.session.tokens().len(), chat.session.context());
    let messages = plural(chat.messages.len(), "message");
    say(format_args!("{messages}, {used} of {context} tokens of context, {}", chat.session.backend_name()))
}

fn save(file: &str, chat: &mut Conversation) -> Result<Next> {
    let json = serde_json::to_string_pretty(&chat.messages).map_err(Failure::other)?;
    std::fs::write(file, json + "\n")
        .map_err(|error| Failure::usage(format!("cannot write {file}: {error}")))?;
    say(format_args!("{} saved", plural(chat.messages.len(), "message")))
}

fn load(file: &str, chat: &mut Conversation) -> Result<Next> {
    let messages: Vec<Message> = serde_json::from_str(&input::file(Path::new(file))?)
        .map_err(|error| Failure::usage(format!("{file} is not a saved conversation: {error}")))?;
    chat.messages = messages;
    chat.last = None;
    say(format_args!("{} loaded", plural(chat.messages.len(), "message")))
}

fn exit(_: &str, _: &mut Conversation) -> Result<Next> {
    Ok(Next::End)
}
