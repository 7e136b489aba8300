//! Rotary tables from metadata: one file per scaling rule, one row in [`RULES`].

mod choice;
mod factors;
mod linear;
mod none;
mod yarn;

use cchaha_plan::{RopeLayout, RopePair, RopeTable};
pub use choice::{ROPES, RopeKind, RopeOptions};

use crate::error::Result;
use crate::models::Keys;

/// The unscaled table, RoFormer's (arXiv 2104.09864): pair `i` of `dim / 2` turns by `base^(-2i / dim)` radians a
/// position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotary {
    /// Values of a head that turn, even.
    pub(crate) dim: usize,
    /// Often called theta.
    pub(crate) base: f64,
    /// Context length the model was trained for, in case a rule needs that before scaling and the file is silent.
    pub(crate) context: usize,
    /// Where the values of a pair lie.
    pub(crate) layout: RopeLayout,
}

/// Changes the frequencies as the metadata says; gives back the factor on rotated values.
type Rule = fn(&Keys<'_>, &Rotary, &mut [f64]) -> Result<f64>;

/// Rules by the name in `rope.scaling.type`.
const RULES: &[(&str, Rule)] = &[("none", none::scale), ("linear", linear::scale), ("yarn", yarn::scale)];

impl Rotary {
    fn frequencies(&self) -> Vec<f64> {
        (0..self.dim / 2).map(|i| self.base.powf(-2.0 * i as f64 / self.dim as f64)).collect()
    }

    fn table(&self, frequencies: &[f64], magnitude: f64) -> RopeTable {
        let pairs = frequencies.iter().map(|&frequency| RopePair { axis: 0, frequency }).collect();
        RopeTable { pairs, layout: self.layout, magnitude }
    }

    /// The table without scaling, for layers the metadata's scaling is not meant for.
    pub(crate) fn unscaled(&self) -> RopeTable {
        self.table(&self.frequencies(), 1.0)
    }

    /// The table scaled as the metadata says, then divided by the file's per-pair `factors` if it has some.
    pub(crate) fn scaled(&self, keys: &Keys<'_>, factors: Option<&[f32]>) -> Result<RopeTable> {
        let mut frequencies = self.frequencies();
        // Old files give a factor and no type, and mean linear.
        let name = keys.text("rope.scaling.type")?.unwrap_or("linear");
        let Some((_, rule)) = RULES.iter().find(|row| row.0 == name) else {
            let names: Vec<&str> = RULES.iter().map(|row| row.0).collect();
            return Err(keys.error(
                "rope.scaling.type",
                format!("is \"{name}\", supported are {}; use another model", names.join(", ")),
            ));
        };
        let magnitude = rule(keys, self, &mut frequencies)?;
        if let Some(factors) = factors {
            factors::divide(keys, factors, &mut frequencies)?;
        }
        if !magnitude.is_finite() || frequencies.iter().any(|frequency| !frequency.is_finite()) {
            return Err(keys.error("rope.scaling.*", "gives rotary frequencies that are not finite"));
        }
        Ok(self.table(&frequencies, magnitude))
    }
}

/// `rope.scaling.factor`, where 0 or none means 1.
fn factor(keys: &Keys<'_>) -> Result<f64> {
    match keys.f64("rope.scaling.factor")? {
        None | Some(0.0) => Ok(1.0),
        Some(factor) if factor > 0.0 => Ok(factor),
        Some(factor) => {
            Err(keys.error("rope.scaling.factor", format!("is {factor}, expected a number above 0")))
        }
    }
}
