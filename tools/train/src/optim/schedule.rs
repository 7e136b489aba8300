//! Learning rates over time.

use serde::{Deserialize, Serialize};

/// How the learning rate falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Half a cosine, to a tenth of the highest.
    Cosine,
    /// Constant, then a straight line to zero: warm up, stable, decay.
    Wsd,
}

/// The learning rate of every step, as a factor on the highest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// How it falls.
    pub shape: Shape,
    /// Steps of a straight line up from zero.
    pub warmup: u64,
    /// Steps in all.
    pub steps: u64,
    /// Part of the steps in which [`Shape::Wsd`] falls.
    pub decay: f64,
}

impl Schedule {
    /// The factor of step `step`, counted from 0.
    pub fn factor(&self, step: u64) -> f64 {
        if step < self.warmup {
            return (step + 1) as f64 / self.warmup as f64;
        }
        match self.shape {
            Shape::Cosine => {
                let rest = self.steps.saturating_sub(self.warmup).max(1);
                let done = ((step - self.warmup) as f64 / rest as f64).min(1.0);
                0.1 + 0.45 * (1.0 + (std::f64::consts::PI * done).cos())
            }
            Shape::Wsd => {
                let falling = (self.steps as f64 * self.decay).max(1.0);
                (self.steps.saturating_sub(step) as f64 / falling).min(1.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_stay_and_fall() {
        let wsd = Schedule { shape: Shape::Wsd, warmup: 10, steps: 100, decay: 0.2 };
        let factors: Vec<f64> = (0..100).map(|step| wsd.factor(step)).collect();
        assert_eq!([factors[0], factors[9], factors[10], factors[80]], [0.1, 1.0, 1.0, 1.0]);
        assert!((factors[90] - 0.5).abs() < 1e-12 && (factors[99] - 0.05).abs() < 1e-12);
        let cosine = Schedule { shape: Shape::Cosine, ..wsd };
        assert!((cosine.factor(55) - 0.55).abs() < 1e-12 && (cosine.factor(100) - 0.1).abs() < 1e-12);
    }
}
