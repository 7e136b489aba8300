//! From logits to a token: a chain of rules, each one file and one row of [`CHAIN`].
//!
//! The names and defaults of the parameters are those llama.cpp's users know, and so is the order: bias and
//! penalties, then the filters on the model's own distribution, then temperature and the draw.

mod bias;
mod candidates;
mod dry;
mod history;
mod logprob;
mod min_p;
mod penalties;
mod rng;
mod stop;
mod top_k;
mod top_p;
mod typical;

use candidates::Candidates;
use history::History;
pub use logprob::{log_sum_exp, logprob, top_logprobs};
use rng::Rng;
pub use stop::{StopStrings, StopTokens, Streamed};

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleParams {
    /// Divides the logits before the draw. 0 or less takes the likeliest token (after bias and penalties) and
    /// leaves the filters out. Default 0.8.
    pub temperature: f32,
    /// Keep the k likeliest tokens; 0 keeps all. Default 40. (Fan et al. 2018, arXiv 1805.04833)
    pub top_k: usize,
    /// Keep the likeliest tokens whose probabilities first reach this sum, 0 to 1; 1 keeps all. Default 0.95.
    /// (Holtzman et al. 2019, arXiv 1904.09751)
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the likeliest, 0 to 1; 0 keeps all. Default 0.05.
    /// (Nguyen et al. 2024, arXiv 2407.01082)
    pub min_p: f32,
    /// Keep the tokens whose surprise is nearest the entropy until their probabilities reach this sum, 0 to 1;
    /// 1 keeps all. Default 1. (Meister et al. 2022, arXiv 2202.00666)
    pub typical_p: f32,
    /// Divides the positive and multiplies the negative logits of recent tokens; 1 does nothing. Default 1.
    /// (Keskar et al. 2019, arXiv 1909.05858)
    pub repeat_penalty: f32,
    /// How many recent tokens the penalties look at: 0 none, -1 all. Default 64.
    pub repeat_last_n: i32,
    /// Subtracted from a recent token's logit once for every time it occurs. Default 0.
    pub frequency_penalty: f32,
    /// Subtracted once from the logit of every token that occurs at all. Default 0.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token that would go on with a copy of earlier text, times `dry_base` for every token by which the
    /// copy is longer than `dry_allowed_length`; 0 does nothing. Default 0. (p-e-w 2024, "DRY")
    pub dry_multiplier: f32,
    /// How the penalty grows with a copy's length. Default 1.75.
    pub dry_base: f32,
    /// Tokens that may be copied without a penalty, less one. Default 2.
    pub dry_allowed_length: u32,
    /// How many recent tokens are searched for copies: 0 none, -1 all. Default -1.
    pub dry_penalty_last_n: i32,
    /// Added to the logits of these tokens; negative infinity bans one. Default none.
    pub logit_bias: Vec<(u32, f32)>,
    /// Start of the random sequence: the same seed draws the same tokens from the same logits. Default 0.
    pub seed: u64,
}

impl Default for SampleParams {
    fn default() -> SampleParams {
        SampleParams {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: -1,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl SampleParams {
    /// Always the likeliest token.
    pub fn greedy() -> SampleParams {
        SampleParams { temperature: 0.0, ..SampleParams::default() }
    }

    fn is_greedy(&self) -> bool {
        self.temperature <= 0.0
    }

    fn validate(&self) -> Result<(), SampleError> {
        let unit = 0.0..=1.0;
        let finite = f32::MIN..=f32::MAX;
        let positive = f32::MIN_POSITIVE..=f32::MAX;
        for (name, value, range, expected) in [
            ("temperature", self.temperature, &finite, "a finite number"),
            ("top_p", self.top_p, &unit, "between 0 and 1"),
            ("min_p", self.min_p, &unit, "between 0 and 1"),
            ("typical_p", self.typical_p, &unit, "between 0 and 1"),
            ("repeat_penalty", self.repeat_penalty, &positive, "a finite number above 0"),
            ("frequency_penalty", self.frequency_penalty, &finite, "a finite number"),
            ("presence_penalty", self.presence_penalty, &finite, "a finite number"),
            ("dry_multiplier", self.dry_multiplier, &(0.0..=f32::MAX), "a finite number, 0 or more"),
            ("dry_base", self.dry_base, &(1.0..=f32::MAX), "a finite number, 1 or more"),
        ] {
            if !range.contains(&value) {
                return Err(SampleError::Range { name, value, expected });
            }
        }
        for (name, value) in
            [("repeat_last_n", self.repeat_last_n), ("dry_penalty_last_n", self.dry_penalty_last_n)]
        {
            if value < -1 {
                let expected = "-1 for all tokens, 0 for none, or a count";
                return Err(SampleError::Range { name, value: value as f32, expected });
            }
        }
        Ok(())
    }
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// A parameter is out of its range.
    #[error("{name} is {value}, but must be {expected}")]
    Range {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: f32,
        /// What it may be.
        expected: &'static str,
    },
    /// A bias is not a number, or is positive infinity.
    #[error(
        "the logit bias of token {token} is {bias}, but must be a finite number, or -inf to ban the token"
    )]
    Bias {
        /// The token.
        token: u32,
        /// Its bias.
        bias: f32,
    },
    /// A token id is not in the vocabulary.
    #[error("token {token} is not in the vocabulary of {vocab_len} tokens")]
    UnknownToken {
        /// The token.
        token: u32,
        /// Tokens in the vocabulary.
        vocab_len: usize,
    },
    /// There are more or fewer logits than tokens.
    #[error("{got} logits for a vocabulary of {vocab_len} tokens")]
    Length {
        /// Tokens in the vocabulary.
        vocab_len: usize,
        /// Logits given.
        got: usize,
    },
    /// The model computed something that is not a logit: NaN or positive infinity.
    #[error("the model's logit of token {token} is {logit}: the weights or the arithmetic are broken")]
    NotALogit {
        /// The first such token.
        token: u32,
        /// Its logit.
        logit: f32,
    },
    /// A stop string is empty; it would stop every text at once.
    #[error("stop string number {index}, counted from 0, is empty")]
    EmptyStop {
        /// Its index.
        index: usize,
    },
    /// Every token has probability 0.
    #[error("no token can follow: every one has probability 0 or is banned by its logit bias")]
    NothingLeft,
}

/// One rule: what it is called, when it has an effect, and what it does to the candidates.
struct Rule {
    name: &'static str,
    /// Shapes the logits, and so matters when the likeliest token is taken without a draw.
    shapes_logits: bool,
    is_active: fn(&SampleParams) -> bool,
    apply: fn(&SampleParams, &mut History, &mut Candidates),
}

/// The rules in the order of their application. The rules that shape logits come first: they index the
/// candidates by token id, which only holds until a filter has removed some.
const CHAIN: &[Rule] =
    &[bias::RULE, penalties::RULE, dry::RULE, top_k::RULE, typical::RULE, top_p::RULE, min_p::RULE];

/// The rules that have an effect; those that only narrow a draw have none when there is no draw.
fn active(params: &SampleParams) -> impl Iterator<Item = &'static Rule> {
    CHAIN.iter().filter(|rule| (rule.is_active)(params) && (rule.shapes_logits || !params.is_greedy()))
}

/// A drawn token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampled {
    /// The token.
    pub id: u32,
    /// How many tokens the draw was between.
    pub n_candidates: usize,
}

/// Draws tokens. Nothing is allocated after the first.
#[derive(Debug)]
pub struct Sampler {
    params: SampleParams,
    history: History,
    candidates: Candidates,
    rng: Rng,
}

impl Sampler {
    /// A sampler for a vocabulary of `vocab_len` tokens.
    pub fn new(params: SampleParams, vocab_len: usize) -> Result<Sampler, SampleError> {
        params.validate()?;
        for &(token, bias) in &params.logit_bias {
            if bias.is_nan() || bias == f32::INFINITY {
                return Err(SampleError::Bias { token, bias });
            }
            if token as usize >= vocab_len {
                return Err(SampleError::UnknownToken { token, vocab_len });
            }
        }
        let penalized = (penalties::RULE.is_active)(&params);
        let window = if penalized { params.repeat_last_n } else { 0 };
        Ok(Sampler {
            history: History::new(window, (dry::RULE.is_active)(&params), vocab_len),
            candidates: Candidates::with_capacity(vocab_len),
            rng: Rng::from_seed(params.seed),
            params,
        })
    }

    /// The names of the rules that have an effect, in order.
    pub fn active_rules(&self) -> impl Iterator<Item = &'static str> {
        active(&self.params).map(|rule| rule.name)
    }

    /// Whether every draw is the largest logit as it comes, the lower token of equals: then anyone who sees them can draw.
    pub fn takes_the_likeliest(&self) -> bool {
        self.params.is_greedy() && active(&self.params).next().is_none()
    }

    /// Tells the penalties that `token` is part of the text: once for every token of the prompt, and once for
    /// every drawn one that is kept.
    pub fn accept(&mut self, token: u32) {
        self.history.push(token);
    }

    /// Draws the next token from `logits [vocab_len]`.
    pub fn sample(&mut self, logits: &[f32]) -> Result<Sampled, SampleError> {
        let vocab_len = self.candidates.vocab_len();
        if logits.len() != vocab_len {
            return Err(SampleError::Length { vocab_len, got: logits.len() });
        }
        logprob::largest(logits)?;
        self.candidates.fill(logits);
        for rule in active(&self.params) {
            (rule.apply)(&self.params, &mut self.history, &mut self.candidates);
        }
        let (id, n_candidates) = if self.params.is_greedy() {
            (self.candidates.best(), 1)
        } else {
            let uniform = self.rng.uniform();
            (self.candidates.draw(self.params.temperature, uniform), self.candidates.len())
        };
        let id = id.ok_or(SampleError::NothingLeft)?;
        Ok(Sampled { id, n_candidates })
    }
}

#[cfg(test)]
mod tests;
