//! Where a chat's messages come from: a line editor on a terminal, plain lines otherwise.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use etcetera::BaseStrategy;
use rustyline::completion::Completer;
use rustyline::config::Behavior;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, Helper};

use super::commands;
use crate::exit::{Failure, Result};
use crate::input::StdinLines;
use crate::output::DIM;

/// Lines that are kept from one chat to the next.
const HISTORY_LINES: usize = 1000;

/// What the user did.
pub(super) enum Turn {
    /// Entered a message or command, not empty.
    Text(String),
    /// Left.
    End,
}

/// Reads turns.
pub(super) struct Reader {
    source: Source,
}

enum Source {
    Terminal { editor: Box<Editor<CommandNames, FileHistory>>, history: Option<PathBuf> },
    Lines(StdinLines),
}

/// Tab completes the names of commands.
struct CommandNames;

impl Completer for CommandNames {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let fits = |name: &&str| line.starts_with('/') && name.starts_with(&line[..at]);
        Ok((0, commands::names().filter(fits).map(str::to_owned).collect()))
    }
}

impl Hinter for CommandNames {
    type Hint = String;
}

impl Highlighter for CommandNames {}
impl Validator for CommandNames {}
impl Helper for CommandNames {}

/// What reading one line gives.
enum Line {
    Text(String),
    Interrupted,
    End,
}

impl Reader {
    pub(super) fn new() -> Result<Reader> {
        if !io::stdin().is_terminal() {
            return Ok(Reader { source: Source::Lines(StdinLines::new()) });
        }
        let failed = |error| Failure::other(format!("cannot edit lines here: {error}"));
        // Prompt and editing go to the terminal itself: stdout is for the answers.
        let config = Config::builder()
            .behavior(Behavior::PreferTerm)
            .max_history_size(HISTORY_LINES)
            .map_err(failed)?
            .auto_add_history(false)
            .build();
        let history = FileHistory::with_config(&config);
        let mut editor = Editor::with_history(config, history).map_err(failed)?;
        editor.set_helper(Some(CommandNames));
        let history = history_file();
        if let Some(path) = &history {
            // The first time there is none.
            let _ = editor.load_history(path);
        }
        Ok(Reader { source: Source::Terminal { editor: Box::new(editor), history } })
    }

    /// Whether somebody sits there: then errors in one turn do not end the chat.
    pub(super) fn interactive(&self) -> bool {
        matches!(self.source, Source::Terminal { .. })
    }

    /// The next message or command; empty ones are passed over.
    pub(super) fn turn(&mut self) -> Result<Turn> {
        let mut interrupted = false;
        loop {
            match self.message()? {
                Line::Text(text) if text.trim().is_empty() => interrupted = false,
                Line::Text(text) => {
                    self.remember(&text);
                    return Ok(Turn::Text(text));
                }
                Line::Interrupted if interrupted => return Ok(Turn::End),
                Line::Interrupted => {
                    interrupted = true;
                    anstream::eprintln!("{DIM}Ctrl-C once more or Ctrl-D ends the chat{DIM:#}");
                }
                Line::End => return Ok(Turn::End),
            }
        }
    }

    /// One message of one or more lines.
    fn message(&mut self) -> Result<Line> {
        let mut text = match self.line("> ")? {
            Line::Text(text) => text,
            other => return Ok(other),
        };
        if let Some(first) = text.trim_start().strip_prefix("\"\"\"") {
            let mut block = first.to_owned();
            while !block.trim_end().ends_with("\"\"\"") {
                match self.line(". ")? {
                    Line::Text(line) => block.extend([if block.is_empty() { "" } else { "\n" }, &line]),
                    Line::End => break,
                    Line::Interrupted => return Ok(Line::Interrupted),
                }
            }
            let block = block.trim_end().strip_suffix("\"\"\"").unwrap_or(&block);
            return Ok(Line::Text(block.trim_end_matches('\n').to_owned()));
        }
        while text.ends_with('\\') {
            text.pop();
            match self.line(". ")? {
                Line::Text(line) => text.extend(["\n", &line]),
                Line::End => break,
                Line::Interrupted => return Ok(Line::Interrupted),
            }
        }
        Ok(Line::Text(text))
    }

    fn line(&mut self, prompt: &str) -> Result<Line> {
        match &mut self.source {
            Source::Terminal { editor, .. } => match editor.readline(prompt) {
                Ok(line) => Ok(Line::Text(line)),
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(error) => Err(Failure::other(format!("cannot read the next line: {error}"))),
            },
            Source::Lines(lines) => match lines.next() {
                Some(line) => Ok(Line::Text(line?)),
                None => Ok(Line::End),
            },
        }
    }

    /// Adds a message to the history, at once, so that a crash loses nothing.
    fn remember(&mut self, text: &str) {
        if let Source::Terminal { editor, history } = &mut self.source {
            let added = editor.add_history_entry(text);
            if let Some(path) = history
                && let Err(error) = added.and_then(|_| editor.append_history(path))
            {
                tracing::warn!("cannot keep the history in {}: {error}", path.display());
                *history = None;
            }
        }
    }
}

/// `~/.local/state/cchaha/chat_history`, or where the system keeps such files; its folder exists.
fn history_file() -> Option<PathBuf> {
    let base = etcetera::choose_base_strategy().ok()?;
    let folder = base.state_dir().unwrap_or_else(|| base.data_dir()).join("cchaha");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("chat_history"))
}
