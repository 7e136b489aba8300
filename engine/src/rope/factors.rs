//! Divisors per rotary pair, stored as a tensor (Llama 3.1, arXiv 2407.21783, whose converter works them out).

use crate::error::Result;
use crate::models::Keys;

/// `f'_i = f_i / factor_i`.
pub(super) fn divide(keys: &Keys<'_>, factors: &[f32], frequencies: &mut [f64]) -> Result<()> {
    if let Some(i) = factors.iter().position(|factor| !factor.is_finite() || *factor <= 0.0) {
        return Err(keys.tensor_error(
            "rope_freqs.weight",
            format!("value {i} is {}, expected a number above 0; get the model again", factors[i]),
        ));
    }
    frequencies.iter_mut().zip(factors).for_each(|(frequency, &factor)| *frequency /= f64::from(factor));
    Ok(())
}
