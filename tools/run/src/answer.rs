//! One answer: the prompt is read, then text is written as it is made.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use cchaha::{Finish, FinishReason, GenerateRequest, Seen, Session, generate};
use serde_json::{Value, json};

use crate::exit::{Failure, Result};
use crate::interrupt::Stoppable;
use crate::output::{DIM, Out, plural, progress};

/// Nothing is left out of sight in silence.
pub(crate) fn say_unseen(seen: &Seen) {
    if let Some(sentence) = seen.sentence() {
        anstream::eprintln!("{DIM}{sentence}{DIM:#}");
    }
}

/// What was written, and how fast.
pub(crate) struct Answer {
    pub(crate) text: String,
    tokens: Vec<u32>,
    /// For each token, where asked for: its log-probability and the likeliest tokens with theirs.
    logprobs: Vec<(f64, Vec<(u32, f64)>)>,
    prompt_tokens: usize,
    /// Tokens of the prompt that were there from an earlier one.
    reused: usize,
    prefill: Duration,
    finish: Finish,
    seed: u64,
}

impl Answer {
    /// Reads `prompt` and continues it. `show` gets the text piece by piece.
    pub(crate) fn write(
        session: &mut Session,
        prompt: &[u32],
        request: &GenerateRequest,
        show: &mut dyn FnMut(&str) -> Result,
    ) -> Result<Answer> {
        let stop = Stoppable::begin();
        let start = Instant::now();
        let mut bar = progress("reading");
        let reused = session.set_prompt(prompt, &mut |progress| {
            bar.at(progress.done, progress.total);
            stop.flow()
        })?;
        drop(bar);
        let prefill = start.elapsed();
        say_unseen(&session.seen());

        let (mut text, mut tokens, mut logprobs) = (String::new(), Vec::new(), Vec::new());
        let mut shown = Ok(());
        let finish = generate(session, request, &mut |piece| {
            text.push_str(piece.text);
            tokens.extend(piece.token);
            logprobs.extend(piece.logprob.map(|logprob| (logprob, piece.top.to_vec())));
            if shown.is_ok() {
                shown = show(piece.text);
            }
            if shown.is_err() { std::ops::ControlFlow::Break(()) } else { stop.flow() }
        })?;
        shown?;
        let seed = request.sample.seed;
        Ok(Answer { text, tokens, logprobs, prompt_tokens: prompt.len(), reused, prefill, finish, seed })
    }

    /// [`Answer::write`] to stdout: the text as it comes, or `json` at the end.
    pub(crate) fn stream(
        session: &mut Session,
        prompt: &[u32],
        request: &GenerateRequest,
        json: bool,
        out: &mut Out,
    ) -> Result<Answer> {
        let answer = Answer::write(session, prompt, request, &mut |piece| {
            if json { Ok(()) } else { out.stream(piece) }
        })?;
        if json {
            out.json(&answer.json())?;
        }
        out.end_line()?;
        Ok(answer)
    }

    fn reason(&self) -> &'static str {
        match self.finish.reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Context => "context",
            FinishReason::Interrupted => "interrupted",
        }
    }

    /// Whether Ctrl-C ended it.
    pub(crate) fn interrupted(&self) -> bool {
        self.finish.reason == FinishReason::Interrupted
    }

    /// Ends the program where Ctrl-C ended the answer.
    pub(crate) fn check(&self) -> Result {
        if self.interrupted() { Err(Failure::interrupted()) } else { Ok(()) }
    }

    fn prefill_tokens_per_s(&self) -> f64 {
        (self.prompt_tokens - self.reused) as f64 / self.prefill.as_secs_f64().max(1e-9)
    }

    /// The one object of `--json`.
    pub(crate) fn json(&self) -> Value {
        let mut answer = json!({
            "text": self.text,
            "tokens": self.tokens,
            "finish_reason": self.reason(),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens.len(),
            "seed": self.seed,
            "timings": {
                "prefill_ms": self.prefill.as_secs_f64() * 1e3,
                "prefill_tokens_per_s": self.prefill_tokens_per_s(),
                "decode_ms": self.finish.elapsed.as_secs_f64() * 1e3,
                "decode_tokens_per_s": self.finish.tokens_per_s(),
            },
        });
        if !self.logprobs.is_empty() {
            let tokens = self.tokens.iter().zip(&self.logprobs);
            let logprobs = tokens
                .map(|(token, (logprob, top))| json!({ "token": token, "logprob": logprob, "top": top }));
            answer["logprobs"] = logprobs.collect();
        }
        answer
    }

    /// One line of figures.
    pub(crate) fn summary(&self) -> String {
        let evaluated = self.prompt_tokens - self.reused;
        let reused = if self.reused > 0 { format!(" ({} more reused)", self.reused) } else { String::new() };
        format!(
            "read {}{reused} at {:.1} t/s, wrote {} at {:.1} t/s, finished: {}, seed {}",
            plural(evaluated, "token"),
            self.prefill_tokens_per_s(),
            plural(self.tokens.len(), "token"),
            self.finish.tokens_per_s(),
            self.reason(),
            self.seed
        )
    }

    /// Shows the figures on a terminal, or where information is logged.
    pub(crate) fn report(&self) {
        if io::stderr().is_terminal() || tracing::enabled!(tracing::Level::INFO) {
            anstream::eprintln!("{DIM}{}{DIM:#}", self.summary());
        }
    }
}
