//! Flags that say how tokens are chosen and when to stop.

use std::hash::{BuildHasher, RandomState};

use cchaha::GenerateRequest;
use cchaha::sample::SampleParams;
use clap::Args;

use crate::args::{above_zero, finite, fraction, not_negative, whole};

/// How tokens are chosen and when to stop.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Seed of the random numbers [default: another one each time]
    #[arg(short, long, value_name = "N", value_parser = whole::<u64>)]
    seed: Option<u64>,

    /// Temperature: 0 always takes the likeliest token, higher is more varied
    #[arg(long, visible_alias = "temperature", value_name = "T", value_parser = not_negative, default_value_t = SampleParams::default().temperature)]
    temp: f32,

    /// Choose among the K likeliest tokens; 0 for all
    #[arg(long, value_name = "K", value_parser = whole::<usize>, default_value_t = SampleParams::default().top_k)]
    top_k: usize,

    /// Choose among the likeliest tokens that together have probability P; 1 for all
    #[arg(long, value_name = "P", value_parser = fraction, default_value_t = SampleParams::default().top_p)]
    top_p: f32,

    /// Choose among tokens at least P times as likely as the likeliest; 0 for all
    #[arg(long, value_name = "P", value_parser = fraction, default_value_t = SampleParams::default().min_p)]
    min_p: f32,

    /// Choose among tokens of typical information content that together have probability P; 1 for all
    #[arg(long, visible_alias = "typical-p", value_name = "P", value_parser = fraction, default_value_t = SampleParams::default().typical_p)]
    typical: f32,

    /// Divide the logits of tokens already there by this; 1 for no penalty
    #[arg(long, value_name = "X", value_parser = above_zero, default_value_t = SampleParams::default().repeat_penalty)]
    repeat_penalty: f32,

    /// How many of the last tokens count as already there; 0 for none, -1 for all
    #[arg(long, value_name = "N", value_parser = last_n, default_value_t = SampleParams::default().repeat_last_n)]
    repeat_last_n: i32,

    /// Subtract this from a token's logit for each time it is already there
    #[arg(long, value_name = "X", value_parser = finite, default_value_t = 0.0)]
    frequency_penalty: f32,

    /// Subtract this from the logit of every token already there
    #[arg(long, value_name = "X", value_parser = finite, default_value_t = 0.0)]
    presence_penalty: f32,

    /// Subtract this from the logit of a token that would go on with a copy of earlier text, so that loops end (DRY); 0 for not
    /// [default: 0; 0.8 to complete with the small model in the program]
    #[arg(long, value_name = "X", value_parser = not_negative)]
    dry_multiplier: Option<f32>,

    /// Times this for every token by which the copy is longer than allowed
    #[arg(long, value_name = "X", value_parser = at_least_1, default_value_t = SampleParams::default().dry_base)]
    dry_base: f32,

    /// Length in tokens from which a copy is penalized
    #[arg(long, value_name = "N", value_parser = whole::<u32>, default_value_t = SampleParams::default().dry_allowed_length)]
    dry_allowed_length: u32,

    /// How many of the last tokens are searched for copies; 0 for none, -1 for all
    #[arg(long, value_name = "N", value_parser = last_n, default_value_t = SampleParams::default().dry_penalty_last_n)]
    dry_penalty_last_n: i32,

    /// Add BIAS to the logit of token ID, as in 13-inf or 198+2.5 (also ID=BIAS); may be repeated
    #[arg(long, value_name = "ID(+|-)BIAS", value_parser = logit_bias)]
    logit_bias: Vec<(u32, f32)>,

    /// Stop before this text; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,

    /// Never end by itself: the tokens that end an answer are not chosen
    #[arg(long)]
    ignore_eos: bool,
}

impl SamplingArgs {
    /// Small models loop: where nothing is said, copies are dear.
    pub(crate) fn spare_copies(&mut self) {
        self.dry_multiplier.get_or_insert(0.8);
    }

    /// A request for as much text as there may be.
    pub(crate) fn request(&self) -> GenerateRequest {
        GenerateRequest {
            sample: SampleParams {
                seed: self.seed.unwrap_or_else(random_seed),
                temperature: self.temp,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                typical_p: self.typical,
                repeat_penalty: self.repeat_penalty,
                repeat_last_n: self.repeat_last_n,
                frequency_penalty: self.frequency_penalty,
                presence_penalty: self.presence_penalty,
                dry_multiplier: self.dry_multiplier.unwrap_or(SampleParams::default().dry_multiplier),
                dry_base: self.dry_base,
                dry_allowed_length: self.dry_allowed_length,
                dry_penalty_last_n: self.dry_penalty_last_n,
                logit_bias: self.logit_bias.clone(),
            },
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            ..GenerateRequest::default()
        }
    }
}

/// Another number each time; 32 bits, so that every JSON reader keeps it exactly.
fn random_seed() -> u64 {
    RandomState::new().hash_one(()) >> 32
}

/// A number of 1 or more.
fn at_least_1(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|x: &f32| x.is_finite() && *x >= 1.0);
    number.ok_or_else(|| "expected a number of 1 or more".into())
}

/// -1 or more.
fn last_n(text: &str) -> Result<i32, String> {
    text.parse().ok().filter(|&n| n >= -1).ok_or_else(|| "expected a whole number of 0 or more, or -1".into())
}

/// `198+2.5`, `13-inf`, `13=-1`.
fn logit_bias(text: &str) -> Result<(u32, f32), String> {
    let parsed = || {
        let (id, bias) = text.split_at(text.find(['+', '-', '='])?);
        let bias: f32 = bias.strip_prefix('=').unwrap_or(bias).parse().ok()?;
        (!bias.is_nan()).then_some((id.trim().parse().ok()?, bias))
    };
    parsed().ok_or_else(|| "expected a token id and what to add, such as 198+2.5, 13-inf or 13=-1".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logit_biases() {
        assert_eq!(logit_bias("198+2.5"), Ok((198, 2.5)));
        assert_eq!(logit_bias("13-inf"), Ok((13, f32::NEG_INFINITY)));
        assert_eq!(logit_bias("13=-1"), Ok((13, -1.0)));
        for text in ["", "13", "+1", "x+1", "13+", "13+x", "13+nan", "-1+2", "13=+-2"] {
            assert!(logit_bias(text).is_err(), "{text}");
        }
    }
}
