//! Log-probabilities under the softmax of a model's logits, in f64.

use super::SampleError;
use super::candidates::Candidate;

/// The largest of `logits`. Negative infinity is a token of probability 0; NaN, positive infinity and an all-zero
/// distribution are errors.
pub(super) fn largest(logits: &[f32]) -> Result<f32, SampleError> {
    let mut max = f32::NEG_INFINITY;
    for (&logit, token) in logits.iter().zip(0..) {
        if logit.is_nan() || logit == f32::INFINITY {
            return Err(SampleError::NotALogit { token, logit });
        }
        max = max.max(logit);
    }
    if max == f32::NEG_INFINITY {
        return Err(SampleError::NothingLeft);
    }
    Ok(max)
}

/// ln of the sum of exp over `logits`, so that ln p(i) = logits\[i\] minus it. Negative infinity is a token of
/// probability 0; NaN, positive infinity and an all-zero distribution are errors.
pub fn log_sum_exp(logits: &[f32]) -> Result<f64, SampleError> {
    let max = f64::from(largest(logits)?);
    Ok(max + logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum::<f64>().ln())
}

/// ln p(token).
pub fn logprob(logits: &[f32], token: u32) -> Result<f64, SampleError> {
    let unknown = SampleError::UnknownToken { token, vocab_len: logits.len() };
    let logit = *logits.get(token as usize).ok_or(unknown)?;
    Ok(f64::from(logit) - log_sum_exp(logits)?)
}

/// The `k` likeliest tokens and their ln p, likeliest first, equals by the lowest id; fewer when the vocabulary
/// has fewer.
pub fn top_logprobs(logits: &[f32], k: usize) -> Result<Vec<(u32, f64)>, SampleError> {
    let log_sum = log_sum_exp(logits)?;
    let k = k.min(logits.len());
    if k == 0 {
        return Ok(Vec::new());
    }
    let mut list: Vec<Candidate> =
        logits.iter().zip(0..).map(|(&logit, id)| Candidate { id, logit }).collect();
    list.select_nth_unstable_by(k - 1, Candidate::order);
    list.truncate(k);
    list.sort_unstable_by(Candidate::order);
    Ok(list.into_iter().map(|c| (c.id, f64::from(c.logit) - log_sum)).collect())
}
