//! YaRN (arXiv 2309.00071): fast pairs keep their frequency, slow ones are interpolated, a ramp joins the two.

use std::f64::consts::TAU;

use super::Rotary;
use crate::error::Result;
use crate::models::Keys;

/// With `L` the original context, pair `i` turns `L f_i / 2 pi` times in it. The pairs that turn `beta_fast` and
/// `beta_slow` times are at `i(t) = dim ln(L / 2 pi t) / (2 ln base)`, rounded outwards; between them
///
/// ```text
/// r_i = clamp((i - i(beta_fast)) / (i(beta_slow) - i(beta_fast)), 0, 1)
/// f'_i = f_i ((1 - r_i) + r_i / factor)
/// ```
///
/// Queries and keys are scaled by `m(1) / m(log_multiplier) * attn_factor`, `m(a) = 1 + 0.1 a ln(factor)`, with
/// `log_multiplier` 0 and `attn_factor` 1 unless the file says otherwise.
pub(super) fn scale(keys: &Keys<'_>, rotary: &Rotary, frequencies: &mut [f64]) -> Result<f64> {
    let factor = super::factor(keys)?;
    let original = keys.count_or("rope.scaling.original_context_length", rotary.context)? as f64;
    let beta_fast = keys.positive_or("rope.scaling.yarn_beta_fast", 32.0)?;
    let beta_slow = keys.positive_or("rope.scaling.yarn_beta_slow", 1.0)?;
    ramp(frequencies, rotary.dim as f64, rotary.base, original, (beta_fast, beta_slow), factor);
    let magnitude = |a: f64| if factor <= 1.0 { 1.0 } else { 1.0 + 0.1 * a * factor.ln() };
    let log_multiplier = keys.f64("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0);
    let attention_factor = keys.positive_or("rope.scaling.attn_factor", 1.0)?;
    Ok(magnitude(1.0) / magnitude(log_multiplier) * attention_factor)
}

/// The part of the rule that changes frequencies; `beta` is `(beta_fast, beta_slow)`.
pub(super) fn ramp(
    frequencies: &mut [f64],
    dim: f64,
    base: f64,
    original: f64,
    beta: (f64, f64),
    factor: f64,
) {
    let pair_turning = |turns: f64| dim * (original / (TAU * turns)).ln() / (2.0 * base.ln());
    let low = pair_turning(beta.0).floor().max(0.0);
    let high = pair_turning(beta.1).ceil().min(dim - 1.0);
    for (i, frequency) in frequencies.iter_mut().enumerate() {
        // A ramp of no width is a step.
        let ramp = ((i as f64 - low) / (high - low).max(1e-3)).clamp(0.0, 1.0);
        *frequency *= 1.0 - ramp + ramp / factor;
    }
}
