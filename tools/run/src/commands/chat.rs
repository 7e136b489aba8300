//! `chat`: a conversation.

mod commands;
mod reader;

use std::path::PathBuf;
use std::sync::Arc;

use cchaha::chat::{ChatTemplate, Message};
use cchaha::text::{Special, Tokenizer};
use cchaha::{ErrorKind, GenerateRequest, Model, Session};
use clap::{Args, ValueHint};
use serde_json::Value;

use crate::answer::Answer;
use crate::args::{DeviceArgs, ModelArgs, positive};
use crate::exit::{Failure, Result};
use crate::input;
use crate::output::{DIM, ERROR, Out, TITLE};
use crate::sampling::SamplingArgs;
use commands::Next;
use reader::{Reader, Turn};

const EXAMPLES: &str = "\
Examples:
  cchaha-run chat -m model.gguf
  cchaha-run chat -m model.gguf --system 'Answer with code only.' --temp 0
  echo 'Write quicksort in Python.' | cchaha-run chat -m model.gguf > answer.md

A line that ends in \\ goes on in the next one, and \"\"\" opens and closes a message of many lines. Ctrl-C stops an
answer; at the prompt, Ctrl-D or Ctrl-C twice ends the program. /help lists the commands. Without a terminal every
line of stdin is one message, in the same way; the end of stdin ends a message too.";

/// Talk with a model
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Chat {
    #[command(flatten)]
    model: ModelArgs,

    /// What the model is told before the conversation
    #[arg(long, visible_alias = "system-prompt", value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,

    /// A Jinja chat template to use in place of the model's own
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    chat_template: Option<PathBuf>,

    /// Most tokens in one answer [default: as many as the context holds]
    #[arg(short, long, visible_alias = "predict", value_name = "N", value_parser = positive)]
    n_predict: Option<usize>,

    #[command(flatten)]
    sampling: SamplingArgs,

    #[command(flatten)]
    device: DeviceArgs,
}

impl Chat {
    pub(crate) fn run(mut self) -> Result {
        self.device.check()?;
        let model = Arc::new(self.model.open()?);
        self.device.of_chat();
        let source = self.chat_template.as_deref().map(input::file).transpose()?;
        let request =
            GenerateRequest { max_tokens: self.n_predict.unwrap_or(usize::MAX), ..self.sampling.request() };
        let template = template(&model, source.as_deref())?;
        let session = self.device.session(&model, "", 0)?;
        let mut chat =
            Conversation { session, template, request, messages: Vec::new(), last: None, out: Out::new() };
        chat.set_system(self.system);
        let mut reader = Reader::new()?;
        if reader.interactive() {
            anstream::eprintln!("{TITLE}{}{TITLE:#}", model.name().escape_debug());
            anstream::eprintln!("{DIM}/help lists the commands, Ctrl-D ends{DIM:#}\n");
        }
        while let Turn::Text(text) = reader.turn()? {
            match chat.turn(text) {
                Ok(true) => {}
                Ok(false) => break,
                Err(failure) if reader.interactive() && failure.is_passing() => {
                    if !failure.message().is_empty() {
                        anstream::eprintln!("{ERROR}error:{ERROR:#} {}", failure.message());
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        chat.out.flush()?;
        self.device.explain_session(&chat.session)
    }
}

/// The template given, or the model's own.
fn template(model: &Model, source: Option<&str>) -> Result<ChatTemplate> {
    let tokenizer = model.tokenizer();
    let text = |id: Option<u32>| id.map_or(String::new(), |id| special_text(tokenizer, id));
    let kind = if source.is_some() { ErrorKind::Usage } else { ErrorKind::Model };
    let source = source.or_else(|| model.chat_template(None));
    ChatTemplate::of_model(source, &text(tokenizer.bos()), &text(tokenizer.eos()))
        .map_err(|error| Failure::new(kind, error.to_string()))
}

fn special_text(tokenizer: &Tokenizer, id: u32) -> String {
    String::from_utf8_lossy(tokenizer.piece(id, true)).into_owned()
}

/// The messages so far and the session that has read them.
struct Conversation {
    session: Session,
    template: ChatTemplate,
    request: GenerateRequest,
    messages: Vec<Message>,
    last: Option<Answer>,
    out: Out,
}

impl Conversation {
    /// Does what `text` asks for; whether the chat goes on.
    fn turn(&mut self, text: String) -> Result<bool> {
        match commands::run(&text, self).unwrap_or(Ok(Next::Answer(text)))? {
            Next::Prompt => {}
            Next::Answer(text) => self.ask(text)?,
            Next::Again => self.answer_again()?,
            Next::End => return Ok(false),
        }
        Ok(true)
    }

    /// Asks the model and shows its answer. Where that fails, the question is forgotten.
    fn ask(&mut self, text: String) -> Result {
        self.messages.push(Message::new("user", text));
        let result = self.answer();
        if result.is_err() {
            // Unless it has got at least part of an answer.
            self.messages.pop_if(|message| message.role == "user");
        }
        result
    }

    /// Answers the last question once more.
    fn answer_again(&mut self) -> Result {
        let Some(last) = self.messages.pop_if(|message| message.role == "assistant") else {
            return Err(Failure::usage("there is no answer to write again"));
        };
        let before = self.messages.len();
        let result = self.answer();
        if self.messages.len() == before {
            self.messages.push(last);
        }
        result
    }

    fn answer(&mut self) -> Result {
        let prompt = self.prompt()?;
        let out = &mut self.out;
        let answer = Answer::write(&mut self.session, &prompt, &self.request, &mut |piece| out.stream(piece));
        // Whatever happened, what comes next starts on its own line.
        self.out.text("\n")?;
        self.out.flush()?;
        let answer = answer?;
        answer.report();
        self.messages.push(Message::new("assistant", answer.text.as_str()));
        let ended = answer.check();
        self.last = Some(answer);
        // What was said until Ctrl-C stays said.
        ended
    }

    /// The tokens of the conversation, up to where the model answers. Templates write BOS themselves; where one does
    /// not and the model wants it, it is put in front.
    fn prompt(&self) -> Result<Vec<u32>> {
        let text = self
            .template
            .render(&self.messages, true, &Value::Null)
            .map_err(|error| Failure::usage(error.to_string()))?;
        let tokenizer = self.session.model().tokenizer();
        let mut tokens = tokenizer.encode(&text, Special::Parse);
        if let Some(bos) = tokenizer.bos().filter(|_| tokenizer.add_bos())
            && tokens.first() != Some(&bos)
        {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    /// Replaces what the model is told before the conversation.
    fn set_system(&mut self, system: Option<String>) {
        self.messages.retain(|message| message.role != "system");
        if let Some(text) = system {
            self.messages.insert(0, Message::new("system", text));
        }
    }

    /// Forgets everything but the system message.
    fn clear(&mut self) {
        self.messages.retain(|message| message.role == "system");
        self.last = None;
    }
}
