//! `score`: how likely the model finds a text.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cchaha::text::Special;
use cchaha::{Model, ScoreRequest, Scores};
use clap::{Args, ValueHint};
use serde_json::json;

use crate::answer::say_unseen;
use crate::args::{DeviceArgs, ModelArgs, positive};
use crate::exit::{Failure, Result};
use crate::input;
use crate::interrupt::Stoppable;
use crate::output::{Out, plural, progress};

const EXAMPLES: &str = "\
Examples:
  cchaha-run score -m model.gguf -f main.rs
  cchaha-run score -m model.gguf --tokens-file ids.json --top 5 --json
  cat main.rs | cchaha-run score -m model.gguf

logprobs[i] is ln p(tokens[i] | tokens[..i]), null for the first token. A text gets a BOS token in front where the
model asks for one; a list of tokens is taken as it is. What does not fit in the context is scored in windows that
overlap by half, so that every token has at least half a context before it. bits_per_byte is the negated sum of all
logprobs over n_bytes, the length of the text; perplexity is per token that has a logprob.";

/// Show the log-probabilities of a text, bits per byte and perplexity
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Score {
    #[command(flatten)]
    model: ModelArgs,

    /// A file that holds the text; - is stdin, as is no file at all
    #[arg(short = 'f', long, visible_alias = "file", value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "tokens_file")]
    text_file: Option<PathBuf>,

    /// A file that holds token ids as a JSON array
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    tokens_file: Option<PathBuf>,

    /// Also the K likeliest tokens for every place
    #[arg(long, value_name = "K", value_parser = positive)]
    top: Option<usize>,

    /// Print one JSON object: {"tokens":[..],"logprobs":[null,..],"top":[..],"n_bytes":..,"bits_per_byte":..,"perplexity":..}
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    device: DeviceArgs,
}

impl Score {
    pub(crate) fn run(mut self) -> Result {
        self.device.check()?;
        let model = Arc::new(self.model.open()?);
        let (tokens, n_bytes) = match &self.tokens_file {
            Some(path) => {
                let tokens = read_tokens(path)?;
                let n_bytes = model.tokenizer().decode(&tokens, false).len();
                (tokens, n_bytes)
            }
            None => {
                let text = input::text(None, self.text_file.as_deref(), ("text", "--file FILE"))?;
                (with_bos(&model, &text), text.len())
            }
        };
        if tokens.len() < 2 {
            return Err(Failure::usage(format!(
                "nothing to score in {}: it takes 2 or more, because the first has nothing before it",
                plural(tokens.len(), "token")
            )));
        }
        let source =
            |tokens: &[u32]| String::from_utf8_lossy(&model.tokenizer().decode(tokens, false)).into_owned();
        self.device.of_file(self.text_file.as_deref(), &source(&tokens));
        let options = self.device.options();
        self.device.say_idle_policy(&options);
        let stop = Stoppable::begin();
        let mut bar = progress("scoring");
        let request = ScoreRequest { top: self.top.unwrap_or(0), ..ScoreRequest::default() };
        let scores = cchaha::score(&model, &options, &tokens, &request, &mut |progress| {
            bar.at(progress.done, progress.total);
            stop.flow()
        })?;
        drop(bar);
        say_unseen(&scores.seen);
        // What is seen is of the last window.
        let window = &tokens[tokens.len() - scores.seen.fates.len()..];
        self.device.explain(&scores.seen, &source(window))?;

        let summary = Summary::new(&scores, n_bytes);
        let mut out = Out::new();
        if self.json {
            let mut result = json!({ "tokens": tokens, "logprobs": scores.logprobs });
            if self.top.is_some() {
                result["top"] = json!(scores.top);
            }
            result["n_bytes"] = json!(summary.n_bytes);
            result["bits_per_byte"] = json!(summary.bits_per_byte());
            result["perplexity"] = json!(summary.perplexity());
            out.json(&result)?;
        } else {
            out.line(format_args!("tokens         {}", tokens.len()))?;
            out.line(format_args!("bytes          {}", summary.n_bytes))?;
            out.line(format_args!("log-likelihood {:.4}", summary.logprob))?;
            out.line(format_args!("bits per byte  {:.4}", summary.bits_per_byte()))?;
            out.line(format_args!("perplexity     {:.4} per token", summary.perplexity()))?;
        }
        out.flush()
    }
}

/// The tokens of a text, after BOS where the model wants it. Never EOS: scoring asks what comes next.
fn with_bos(model: &Model, text: &str) -> Vec<u32> {
    let tokenizer = model.tokenizer();
    let mut tokens: Vec<u32> = tokenizer.bos().filter(|_| tokenizer.add_bos()).into_iter().collect();
    tokens.extend(tokenizer.encode(text, Special::Plain));
    tokens
}

fn read_tokens(path: &Path) -> Result<Vec<u32>> {
    serde_json::from_str(&input::file(path)?).map_err(|error| {
        Failure::usage(format!(
            "{} is not a JSON array of token ids, such as [1, 403]: {error}",
            path.display()
        ))
    })
}

/// What all tokens that have a log-probability come to.
struct Summary {
    logprob: f64,
    n_tokens: usize,
    n_bytes: usize,
}

impl Summary {
    fn new(scores: &Scores, n_bytes: usize) -> Summary {
        let scored = scores.logprobs.iter().flatten();
        Summary { logprob: scored.clone().sum(), n_tokens: scored.count(), n_bytes }
    }

    /// Not a number, and null in JSON, where there are no bytes.
    fn bits_per_byte(&self) -> f64 {
        -self.logprob / std::f64::consts::LN_2 / self.n_bytes as f64
    }

    fn perplexity(&self) -> f64 {
        (-self.logprob / self.n_tokens as f64).exp()
    }
}
