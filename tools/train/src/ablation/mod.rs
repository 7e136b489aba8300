//! Which of the architecture's ideas earn their place: the same small model trained with and without each, beside placebos that cost as
//! much and mean nothing.
//!
//! All runs have the same parameters, the same number of training tokens of the same length of sequence, and so the same compute.
//! The rule, fixed before any run: a feature wins only if the 95% interval of its difference in bits per byte lies below zero against
//! the baseline *and* against each of its placebos.

mod picture;
mod statistics;

pub use picture::picture;
pub use statistics::{Difference, difference};

use crate::data::Tokens;
use crate::model::Config;
use crate::rng::Rng;

/// How text becomes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// Byte-pair encoding of everything alike.
    Plain,
    /// Separate spaces for the classes of code.
    Hybrid,
    /// The same with classes drawn by lot.
    Lots,
}

/// What the scope axis turns with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scopes {
    /// There is none: all pairs turn with the token.
    None,
    /// The scanner's positions.
    Real,
    /// Always zero: as many pairs that do not turn.
    Zero,
    /// The scanner's positions in another order.
    Shuffled,
}

/// What windowed layers see beyond their window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pins {
    /// Nothing.
    None,
    /// Imports and headers.
    Real,
    /// As many tokens drawn by lot.
    Lots,
}

/// One row of the study.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Its name, also that of its folders.
    pub name: &'static str,
    /// The feature it is a placebo of.
    pub placebo_of: Option<&'static str>,
    /// How text becomes tokens.
    pub vocabulary: Vocabulary,
    /// The scope axis.
    pub scopes: Scopes,
    /// Pins.
    pub pins: Pins,
}

/// What every other row is compared with.
pub const BASELINE: Variant = Variant {
    name: "baseline",
    placebo_of: None,
    vocabulary: Vocabulary::Plain,
    scopes: Scopes::None,
    pins: Pins::None,
};

/// All rows, the baseline first.
pub const VARIANTS: [Variant; 9] = [
    BASELINE,
    Variant { name: "tokens", vocabulary: Vocabulary::Hybrid, ..BASELINE },
    Variant { name: "tokens-lots", placebo_of: Some("tokens"), vocabulary: Vocabulary::Lots, ..BASELINE },
    Variant { name: "scopes", scopes: Scopes::Real, ..BASELINE },
    Variant { name: "scopes-zero", placebo_of: Some("scopes"), scopes: Scopes::Zero, ..BASELINE },
    Variant { name: "scopes-shuffled", placebo_of: Some("scopes"), scopes: Scopes::Shuffled, ..BASELINE },
    Variant { name: "pins", pins: Pins::Real, ..BASELINE },
    Variant { name: "pins-lots", placebo_of: Some("pins"), pins: Pins::Lots, ..BASELINE },
    Variant {
        name: "all",
        placebo_of: None,
        vocabulary: Vocabulary::Hybrid,
        scopes: Scopes::Real,
        pins: Pins::Real,
    },
];

impl Variant {
    /// The model: `config` with only what the variant has of it.
    pub fn config(&self, config: &Config) -> Config {
        let pairs = config.head_dim / 2;
        Config {
            scope_split: if self.scopes == Scopes::None { pairs } else { config.scope_split },
            sigma: if self.scopes == Scopes::Zero { 0.0 } else { config.sigma },
            pins: self.pins != Pins::None,
            ..config.clone()
        }
    }

    /// What the variant makes of a text's scope positions and pins.
    pub fn change(&self, tokens: &mut Tokens) {
        if self.scopes == Scopes::Shuffled {
            // Within blocks of 64, by an odd multiplier, so that every position has its place: as `--rope shuffled` of the engine.
            tokens.scopes.iter_mut().for_each(|scope| *scope = *scope & !63 | scope.wrapping_mul(37) & 63);
        }
        if self.pins == Pins::Lots {
            // The same text gives the same lots.
            let seed = tokens.tokens.iter().fold(tokens.bytes as u64, |seed, &token| {
                (seed ^ u64::from(token)).wrapping_mul(0x0100_0000_01b3)
            });
            Rng::new(seed, 5).shuffle(&mut tokens.pinned);
        }
    }

    /// Whether [`Variant::change`] does anything.
    pub fn changes(&self) -> bool {
        self.scopes == Scopes::Shuffled || self.pins == Pins::Lots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placebos_keep_the_numbers_and_lose_the_meaning() {
        let tokens = Tokens {
            tokens: (0..500).collect(),
            scopes: (0..500).map(|i| i / 3).collect(),
            pinned: (0..500).map(|i| i % 50 < 5).collect(),
            learned: vec![true; 500],
            bytes: 1500,
            whole: false,
        };
        for variant in VARIANTS {
            let mut changed = tokens.clone();
            variant.change(&mut changed);
            assert_eq!(changed != tokens, variant.changes(), "{}", variant.name);
            let pins = |tokens: &Tokens| tokens.pinned.iter().filter(|&&pinned| pinned).count();
            assert_eq!(pins(&changed), pins(&tokens));
            let mut places = changed.scopes.clone();
            places.sort_unstable();
            places.dedup();
            assert!(places.len() >= 128, "positions stay apart");
            let mut again = tokens.clone();
            variant.change(&mut again);
            assert_eq!(again, changed);
        }
    }

    #[test]
    fn every_placebo_differs_from_its_feature_in_one_thing() {
        for variant in VARIANTS {
            let Some(feature) = variant.placebo_of else { continue };
            let feature = VARIANTS.iter().find(|row| row.name == feature).unwrap();
            let same = [
                variant.vocabulary == feature.vocabulary,
                variant.scopes == feature.scopes,
                variant.pins == feature.pins,
            ];
            assert_eq!(same.into_iter().filter(|same| !same).count(), 1, "{}", variant.name);
        }
    }
}
