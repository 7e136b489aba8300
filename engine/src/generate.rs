//! Continuing a session token by token.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::code::Syntax;
use crate::error::{ErrorKind, Result};
use crate::fim::Join;
use crate::heal::{self, Beginning};
use crate::model::Model;
use crate::sample::{SampleError, SampleParams, Sampler, StopStrings, logprob, top_logprobs};
use crate::session::{self, Session};
use crate::text::{Stream, TokenClass, Tokenizer};

/// How to continue.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// The most tokens to generate.
    pub max_tokens: usize,
    /// How to choose each token.
    pub sample: SampleParams,
    /// Texts that end the generation and are not given out.
    pub stop: Vec<String>,
    /// Tokens that end it, beside those the model ends a text or a turn with.
    pub stop_tokens: Vec<u32>,
    /// Never choose the tokens the model ends a text or a turn with.
    pub ignore_eos: bool,
    /// Report the log-probability of every token, before any sampling rule.
    pub logprobs: bool,
    /// How many of the likeliest tokens to report with theirs.
    pub top: usize,
    /// Whether the text shows control tokens.
    pub special: bool,
    /// Where the text fills a hole: it ends where it meets what follows, and comes line by line.
    pub join: Option<Join>,
    /// Choose no token that this, which has read the prompt, forbids, unless the 200 likeliest are forbidden.
    pub syntax: Option<Syntax>,
    /// The end of a prompt that [`crate::heal()`] took back; the session holds what comes before it. It is not given out again.
    pub healed: Vec<u32>,
}

impl Default for GenerateRequest {
    fn default() -> GenerateRequest {
        GenerateRequest {
            max_tokens: usize::MAX,
            sample: SampleParams::default(),
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            ignore_eos: false,
            logprobs: false,
            top: 0,
            special: false,
            join: None,
            syntax: None,
            healed: Vec::new(),
        }
    }
}

/// What one generated token adds.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Text that is certain now: whole characters that are not the beginning of a stop text.
    pub text: &'a str,
    /// The token; `None` in a last piece, which gives out text that was held back.
    pub token: Option<u32>,
    /// `ln p` of the token, where asked for.
    pub logprob: Option<f64>,
    /// The likeliest tokens with their `ln p`, falling; as many as asked for.
    pub top: &'a [(u32, f64)],
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model, a stop text or a stop token.
    Stop,
    /// As many tokens as asked for.
    Length,
    /// The caller.
    Interrupted,
    /// The context is full.
    Context,
}

/// How a generation ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finish {
    /// Why.
    pub reason: FinishReason,
    /// The token that ended it, where one did.
    pub stop_token: Option<u32>,
    /// The stop text that ended it, where one did.
    pub stop_text: Option<String>,
    /// Tokens generated; one that ended the generation is not counted.
    pub tokens: usize,
    /// From the first choice of a token to the end.
    pub elapsed: Duration,
}

impl Finish {
    /// Generated tokens per second.
    pub fn tokens_per_s(&self) -> f64 {
        self.tokens as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// The syntax of what is written.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    tokenizer: &'a Tokenizer,
    syntax: Option<Syntax>,
}

/// Likely tokens that may be forbidden before the syntax gives in.
const MOST_FORBIDDEN: usize = 200;

impl Guard<'_> {
    /// Whether a token may come after what `stream` has seen, less the first `known` bytes, which have come already.
    pub(crate) fn allows(&self, stream: &Stream<'_>, id: u32, known: usize) -> bool {
        let Some(syntax) = &self.syntax else { return true };
        if self.tokenizer.is_eog(id) {
            return syntax.may_end();
        }
        // A hybrid vocabulary has keywords and line breaks with their indentation as tokens.
        let whole = self.tokenizer.class(id) == Some(TokenClass::Structure);
        let mut stream = stream.clone();
        stream.bytes_of(id).get(known..).is_some_and(|bytes| syntax.allows(bytes, whole))
    }

    fn read(&mut self, stream: &Stream<'_>, id: u32, known: usize) {
        if let Some(syntax) = &mut self.syntax {
            syntax.read(stream.clone().bytes_of(id).get(known..).unwrap_or_default());
        }
    }

    fn choose(&self, sampler: &mut Sampler, logits: &[f32], stream: &Stream<'_>) -> Result<u32> {
        let first = sampler.sample(logits)?.id;
        if self.allows(stream, first, 0) {
            return Ok(first);
        }
        let mut left = logits.to_vec();
        let mut id = first;
        for _ in 0..MOST_FORBIDDEN {
            left[id as usize] = f32::NEG_INFINITY;
            id = match sampler.sample(&left) {
                Err(SampleError::NothingLeft) => break,
                sampled => sampled?.id,
            };
            if self.allows(stream, id, 0) {
                return Ok(id);
            }
        }
        Ok(first)
    }
}

/// One answer in the making: what chooses its tokens, turns them into text and tells its end. Logits come from outside.
pub(crate) struct Generation<'a> {
    tokenizer: &'a Tokenizer,
    request: &'a GenerateRequest,
    sampler: Sampler,
    guard: Guard<'a>,
    stream: Stream<'a>,
    stops: StopStrings,
    join: Option<Join>,
    /// Bytes of the next token's text that the prompt has already.
    known_bytes: usize,
    finish: Finish,
    /// When the first token was chosen.
    started: Option<Instant>,
}

impl<'a> Generation<'a> {
    /// After the tokens of a prompt.
    pub(crate) fn new(
        model: &'a Model,
        request: &'a GenerateRequest,
        prompt: &[u32],
    ) -> Result<Generation<'a>> {
        let tokenizer = model.tokenizer();
        session::check_tokens(model, &request.stop_tokens)?;
        let mut params = request.sample.clone();
        if request.ignore_eos {
            params.logit_bias.extend(tokenizer.eog_ids().iter().map(|&id| (id, f32::NEG_INFINITY)));
        }
        let mut sampler = Sampler::new(params, model.plan().vocab)?;
        prompt.iter().for_each(|&token| sampler.accept(token));
        let finish = Finish {
            reason: FinishReason::Length,
            stop_token: None,
            stop_text: None,
            tokens: 0,
            elapsed: Duration::ZERO,
        };
        Ok(Generation {
            tokenizer,
            request,
            sampler,
            guard: Guard { tokenizer, syntax: request.syntax.clone() },
            stream: tokenizer.stream_after(prompt, request.special),
            stops: StopStrings::new(request.stop.clone())?,
            join: request.join.clone(),
            known_bytes: 0,
            finish,
            started: None,
        })
    }

    /// Whether every token is the one of the largest logit, and nobody asks for more.
    fn takes_the_likeliest(&self) -> bool {
        let request = self.request;
        let asks = request.logprobs || request.top > 0 || request.syntax.is_some();
        self.sampler.takes_the_likeliest() && !asks
    }

    /// Whether there is to be any token.
    pub(crate) fn is_wanted(&self) -> bool {
        self.request.max_tokens > 0
    }

    /// The next token.
    pub(crate) fn choose(&mut self, logits: &[f32]) -> Result<u32> {
        self.started.get_or_insert_with(Instant::now);
        self.guard.choose(&mut self.sampler, logits, &self.stream)
    }

    /// Takes a token that was chosen by `logits`, and says whether it goes on.
    pub(crate) fn push(
        &mut self,
        token: u32,
        logits: &[f32],
        on_piece: &mut dyn FnMut(&Piece<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let Generation { request, finish, .. } = self;
        let ended = |finish: &mut Finish, reason| {
            finish.reason = reason;
            Ok(ControlFlow::Break(()))
        };
        let ends = self.tokenizer.is_eog(token) && !request.ignore_eos;
        if ends || request.stop_tokens.contains(&token) {
            finish.stop_token = Some(token);
            return ended(finish, FinishReason::Stop);
        }
        finish.tokens += 1;
        let top = if request.top > 0 { top_logprobs(logits, request.top)? } else { Vec::new() };
        let logprob = if request.logprobs { Some(logprob(logits, token)?) } else { None };
        self.guard.read(&self.stream, token, self.known_bytes);
        let text = self.stream.push(token);
        let mut streamed = self.stops.push(&text[std::mem::take(&mut self.known_bytes)..]);
        if let Some(join) = &mut self.join {
            streamed.text = join.push(&streamed.text);
        }
        let flow = on_piece(&Piece { text: &streamed.text, token: Some(token), logprob, top: &top });
        if let Some(index) = streamed.stop {
            finish.stop_text = Some(request.stop[index].clone());
            return ended(finish, FinishReason::Stop);
        }
        if self.join.as_ref().is_some_and(Join::done) {
            return ended(finish, FinishReason::Stop);
        }
        if flow.is_break() {
            return ended(finish, FinishReason::Interrupted);
        }
        if finish.tokens == request.max_tokens {
            return ended(finish, FinishReason::Length);
        }
        self.sampler.accept(token);
        Ok(ControlFlow::Continue(()))
    }

    /// Gives out what was held back.
    pub(crate) fn end(mut self, on_piece: &mut dyn FnMut(&Piece<'_>) -> ControlFlow<()>) -> Finish {
        self.finish.elapsed = self.started.map_or(Duration::ZERO, |started| started.elapsed());
        let mut rest = String::new();
        if self.finish.stop_text.is_none() {
            rest = self.stops.push(self.stream.finish()).text;
            rest.push_str(&self.stops.finish());
        }
        if let Some(join) = &mut self.join {
            rest = join.push(&rest);
            rest.push_str(&join.finish());
        }
        if !rest.is_empty() {
            let _ = on_piece(&Piece { text: &rest, token: None, logprob: None, top: &[] });
        }
        self.finish
    }

    /// Ends it for a reason from outside.
    pub(crate) fn stop(&mut self, reason: FinishReason) {
        self.finish.reason = reason;
    }
}

/// Continues the session after its last token. Generated tokens join the session, except that the last one may
/// not have been evaluated; [`Session::set_prompt`] with the whole conversation does what is left.
///
/// # Errors
/// [`ErrorKind::Usage`] where the session is empty or the request is out of range; those of the device. An
/// interruption is no error here but a reason to finish.
pub fn generate(
    session: &mut Session,
    request: &GenerateRequest,
    on_piece: &mut dyn FnMut(&Piece<'_>) -> ControlFlow<()>,
) -> Result<Finish> {
    let model = session.model().clone();
    session.refresh()?;
    let mut generation = Generation::new(&model, request, session.tokens())?;
    let argmax = generation.takes_the_likeliest();
    let Generation { sampler, stream, guard, known_bytes, .. } = &mut generation;
    let Beginning { token: mut chosen, known_bytes: known } =
        heal::begin(session, sampler, stream, &request.healed, guard)?;
    *known_bytes = known;
    while generation.is_wanted() {
        let token = match chosen.take() {
            Some(token) => token,
            None => generation.choose(session.logits())?,
        };
        if generation.push(token, session.logits(), on_piece)?.is_break() {
            break;
        }
        if session.tokens().len() == session.context() {
            generation.stop(FinishReason::Context);
            break;
        }
        if argmax && session.goes_ahead() {
            // The device chooses, and logits stay there.
            chosen = Some(session.step(token)?);
            continue;
        }
        match session.feed(&[token], &mut |_| ControlFlow::Continue(())) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                generation.stop(FinishReason::Interrupted);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    session.settle();
    Ok(generation.end(on_piece))
}
