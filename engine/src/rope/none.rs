//! No scaling.

use super::Rotary;
use crate::error::Result;
use crate::models::Keys;

/// Leaves the frequencies alone. A factor beside the type `none` has no meaning, so that it is not looked at.
pub(super) fn scale(keys: &Keys<'_>, _rotary: &Rotary, _frequencies: &mut [f64]) -> Result<f64> {
    keys.f64("rope.scaling.factor")?;
    Ok(1.0)
}
