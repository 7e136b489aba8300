//! Sizes and choices of a model.

use cchaha_cli::exit::{Failure, Result};
use serde::{Deserialize, Serialize};

use crate::ops::attention::{Attention, Sight};
use crate::ops::rope::Rope;

/// Added to the mean of squares in norms.
pub(crate) const EPS: f64 = 1e-6;

/// A `cchaha` model's sizes and choices: everything its weights do not say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of Q.
    pub heads: usize,
    /// Heads of K and V.
    pub kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Width of the feed-forward block.
    pub hidden: usize,
    /// Tokens of a training sequence.
    pub context: usize,
    /// Newest tokens a windowed layer sees, the current one included.
    pub window: usize,
    /// Every so many layers, the last sees everything; 0 where none does.
    pub pattern: usize,
    /// Base of the rotary frequencies.
    pub rope_base: f64,
    /// First rotary pair that turns with the scope; `head_dim / 2` where none does.
    pub scope_split: usize,
    /// Factor on scope positions.
    pub sigma: f64,
    /// Whether windowed layers see pinned tokens beyond their window.
    pub pins: bool,
}

impl Config {
    /// That the sizes fit each other.
    ///
    /// # Errors
    /// A sentence that says which do not.
    pub fn check(&self) -> Result {
        let counts = [self.vocab, self.width, self.layers, self.heads, self.kv_heads, self.hidden];
        let problem = if counts.contains(&0) || self.context == 0 || self.window == 0 {
            "every size of a model is at least 1".to_owned()
        } else if counts.iter().chain([&self.context, &self.head_dim]).any(|&n| n > 1 << 24) {
            "sizes of a model are at most 16777216".to_owned()
        } else if self.layers > 1024 {
            format!("a model has at most 1024 layers, not {}", self.layers)
        } else if !self.heads.is_multiple_of(self.kv_heads) {
            format!("{} heads cannot share {} heads of K and V evenly", self.heads, self.kv_heads)
        } else if self.head_dim < 2 || !self.head_dim.is_multiple_of(2) {
            format!("a head has an even number of values, not {}", self.head_dim)
        } else if self.scope_split > self.head_dim / 2 {
            format!("the scope axis begins at pair {} of {}", self.scope_split, self.head_dim / 2)
        } else if !(self.rope_base > 1.0 && self.rope_base.is_finite() && self.sigma.is_finite()) {
            "the rotary base is above 1, and sigma is a number".to_owned()
        } else {
            return Ok(());
        };
        Err(Failure::usage(problem))
    }

    /// Whether a layer sees only its window.
    pub fn windowed(&self, layer: usize) -> bool {
        self.window < self.context && (self.pattern == 0 || !(layer + 1).is_multiple_of(self.pattern))
    }

    /// What a layer sees.
    pub(super) fn sight(&self, windowed: bool) -> Sight {
        if windowed {
            Sight { window: Some(self.window), pins: self.pins }
        } else {
            Sight { window: None, pins: false }
        }
    }

    /// How heads turn.
    pub fn rope(&self) -> Rope {
        Rope { head_dim: self.head_dim, base: self.rope_base, split: self.scope_split, sigma: self.sigma }
    }

    pub(super) fn attention(&self) -> Attention {
        Attention { len: self.context, heads: self.heads, kv_heads: self.kv_heads, head_dim: self.head_dim }
    }
}
