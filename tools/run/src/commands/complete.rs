//! `complete`: continue a text.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cchaha::code::{Language, PLAIN, Syntax};
use cchaha::text::Special;
use cchaha::{GenerateRequest, heal};
use clap::builder::BoolishValueParser;
use clap::{Args, ValueHint};

use crate::answer::Answer;
use crate::args::{DeviceArgs, ModelArgs, positive, whole};
use crate::exit::{Failure, Result};
use crate::input;
use crate::output::Out;
use crate::sampling::SamplingArgs;

const EXAMPLES: &str = "\
Examples:
  cchaha-run complete -m model.gguf -p 'def fibonacci(n):' -n 64
  cchaha-run complete -m model.gguf --file main.py --temp 0 --stop $'\\n\\n'
  cchaha-run complete -m model.gguf --file main.py --syntax --dry-multiplier 0.8
  git diff | cchaha-run complete -m model.gguf --json | jq -r .text

Only the continuation goes to stdout, as it is made; with --json one object at the end:
  {\"text\", \"tokens\", \"finish_reason\", \"prompt_tokens\", \"completion_tokens\", \"seed\", \"timings\", \"logprobs\"}
finish_reason is stop, length (-n), context (no room left) or interrupted (Ctrl-C).";

/// Continue a text
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Complete {
    #[command(flatten)]
    model: ModelArgs,

    /// The text to continue
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "file")]
    prompt: Option<String>,

    /// A file that holds the text to continue; - is stdin, as is no text at all
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,

    /// Most tokens to write
    #[arg(short, long, visible_alias = "predict", value_name = "N", value_parser = positive, default_value_t = 256)]
    n_predict: usize,

    /// Read what looks like a special token, such as <|im_start|>, as that token, and show such tokens
    #[arg(long)]
    special: bool,

    /// Choose only tokens that keep the program's syntax in order: brackets, literals, and in Python indentation, clauses and
    /// operators [default: on with the small model in the program and a language that is known, else off]
    #[arg(long, value_name = "ON|OFF", num_args = 0..=1, require_equals = true, default_missing_value = "on", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    syntax: Option<bool>,

    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,

    /// Also the log-probability of every token and of the K likeliest ones in its place
    #[arg(long, value_name = "K", value_parser = whole::<usize>, requires = "json")]
    logprobs: Option<usize>,

    #[command(flatten)]
    sampling: SamplingArgs,

    #[command(flatten)]
    device: DeviceArgs,
}

impl Complete {
    pub(crate) fn run(mut self) -> Result {
        self.device.check()?;
        let model = Arc::new(self.model.open_or_embedded()?);
        let text = input::text(self.prompt, self.file.as_deref(), ("prompt", "-p TEXT or --file FILE"))?;
        let special = if self.special { Special::Parse } else { Special::Plain };
        let mut prompt = model.tokenizer().encode_prompt(&text, special);
        let healed = heal(model.tokenizer(), &mut prompt);
        let named = self.device.options().window.language.name != PLAIN.name;
        // A file of another language is not what it looks like most.
        let known = named
            || self
                .file
                .as_deref()
                .is_none_or(|path| path == Path::new("-") || Language::of_path(path).name != PLAIN.name);
        self.device.of_file(self.file.as_deref(), &text);
        let language = if known { self.device.options().window.language } else { &PLAIN };
        let small = self.model.is_embedded();
        if small {
            self.sampling.spare_copies();
        }
        let syntax = self.syntax.unwrap_or(small).then(|| Syntax::after(language, text.as_bytes()));
        if self.syntax == Some(true) && syntax.as_ref().is_some_and(Option::is_none) {
            return Err(Failure::usage("--syntax needs a programming language: name it with --language"));
        }
        let request = GenerateRequest {
            max_tokens: self.n_predict,
            special: self.special,
            logprobs: self.logprobs.is_some(),
            top: self.logprobs.unwrap_or(0),
            healed,
            syntax: syntax.flatten(),
            ..self.sampling.request()
        };
        let mut session = self.device.session(&model, &text, prompt.len() + self.n_predict)?;
        let mut out = Out::new();
        let answer = Answer::stream(&mut session, &prompt, &request, self.json, &mut out)?;
        self.device.explain_session(&session)?;
        answer.report();
        answer.check()
    }
}
