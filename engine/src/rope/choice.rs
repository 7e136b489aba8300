//! Rotary positions other than the file's own: for going past the trained length, and along scopes.
//!
//! Each rule changes tables a plan already has, so it works for every architecture.

use std::f64::consts::TAU;

use cchaha_gguf::Metadata;
use cchaha_plan::{Plan, RopeTable};

use super::yarn;
use crate::error::{Error, Result};

/// Which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeKind {
    /// The model's own, past its trained length too.
    Linear,
    /// Every position divided by `context / trained` (arXiv 2306.15595).
    LinearScale,
    /// YaRN for `context / trained` (arXiv 2309.00071).
    Yarn,
    /// Slow pairs turn with the scope position. The idea of hierarchical positions is HiRoPE's (arXiv 2403.19115);
    /// the formulation is our own.
    Scope,
}

/// Names as options spell them.
pub const ROPES: [(&str, RopeKind); 4] = [
    ("linear", RopeKind::Linear),
    ("linear-scale", RopeKind::LinearScale),
    ("yarn", RopeKind::Yarn),
    ("scope", RopeKind::Scope),
];

/// Scope positions count openings of scopes and blocks, which come about this many tokens apart.
const TOKENS_PER_SCOPE: f64 = 24.0;

/// Which rule, and its figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeOptions {
    /// Which.
    pub kind: RopeKind,
    /// Of `scope`: the first rotary pair that turns with the scope position; where not given, what the file says in
    /// `cchaha.rope.scope_split`, or else the first pair that does not complete a turn in the trained length.
    pub split: Option<usize>,
    /// Of `scope`: what a scope position is worth in token positions; where not given, `cchaha.rope.sigma` of the file.
    pub sigma: Option<f64>,
    /// Of `scope`: a control, which gives every scope position the place of another.
    pub shuffled: bool,
}

impl RopeOptions {
    /// A rule with its own figures.
    pub fn new(kind: RopeKind) -> RopeOptions {
        RopeOptions { kind, split: None, sigma: None, shuffled: false }
    }

    /// The same with what a file says of scopes, where nothing else was given.
    ///
    /// # Errors
    /// For keys of another type.
    pub(crate) fn or_of(mut self, metadata: &Metadata) -> Result<RopeOptions> {
        self.split = self.split.or(metadata.usize("cchaha.rope.scope_split")?);
        self.sigma = self.sigma.or(metadata.f32("cchaha.rope.sigma")?.map(f64::from));
        Ok(self)
    }

    /// The plan with its tables changed for `context` tokens.
    ///
    /// # Errors
    /// For figures out of range.
    pub(crate) fn apply(&self, plan: &Plan, context: usize) -> Result<Plan> {
        if self.sigma.is_some_and(|sigma| !(0.0..=1e6).contains(&sigma)) {
            return Err(Error::usage("the sigma of scope positions must lie between 0 and 1000000"));
        }
        let mut plan = plan.clone();
        let trained = plan.context as f64;
        let factor = (context as f64 / trained).max(1.0);
        for table in &mut plan.ropes {
            match self.kind {
                RopeKind::Linear => {}
                RopeKind::LinearScale => table.pairs.iter_mut().for_each(|pair| pair.frequency /= factor),
                RopeKind::Yarn => stretch(table, trained, factor),
                RopeKind::Scope => self.scope(table, trained)?,
            }
        }
        if self.kind == RopeKind::Scope {
            plan.axes = plan.axes.max(2);
        }
        Ok(plan)
    }

    fn scope(&self, table: &mut RopeTable, trained: f64) -> Result<()> {
        let pairs = table.pairs.len();
        let derived = table.pairs.iter().position(|pair| pair.frequency * trained < TAU);
        let split = self.split.or(derived).unwrap_or(pairs);
        if split > pairs {
            return Err(Error::usage(format!("there is no rotary pair {split}: a head has {pairs}")));
        }
        // Our own architecture has such pairs from the start.
        for pair in table.pairs[split..].iter_mut().filter(|pair| pair.axis == 0) {
            pair.axis = 1;
            pair.frequency *= self.sigma.unwrap_or(TOKENS_PER_SCOPE);
        }
        Ok(())
    }
}

fn stretch(table: &mut RopeTable, trained: f64, factor: f64) {
    let [first, second, ..] = &table.pairs[..] else { return };
    // Neighbouring pairs turn at a constant ratio, base^(-2 / dim).
    let dim = 2.0 * table.pairs.len() as f64;
    let base = (first.frequency / second.frequency).powf(dim / 2.0);
    let mut frequencies: Vec<f64> = table.pairs.iter().map(|pair| pair.frequency).collect();
    yarn::ramp(&mut frequencies, dim, base, trained, (32.0, 1.0), factor);
    table.pairs.iter_mut().zip(frequencies).for_each(|(pair, frequency)| pair.frequency = frequency);
    table.magnitude *= 1.0 + 0.1 * factor.ln();
}
