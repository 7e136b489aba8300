//! Position interpolation (arXiv 2306.15595): every position is divided by the factor.

use super::Rotary;
use crate::error::Result;
use crate::models::Keys;

/// `f' = f / factor`; a factor of 0 or none means 1.
pub(super) fn scale(keys: &Keys<'_>, _rotary: &Rotary, frequencies: &mut [f64]) -> Result<f64> {
    let factor = super::factor(keys)?;
    frequencies.iter_mut().for_each(|frequency| *frequency /= factor);
    Ok(1.0)
}
