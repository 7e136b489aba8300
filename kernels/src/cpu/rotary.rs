//! The angles of a batch: `cos` and `sin` of `position[axis] * frequency`, once per table and batch.
//!
//! The product and the functions are f64: at position 100,000 an f32 angle would be off by 0.004 radians.

use cchaha_plan::{Batch, Result, RopeTable};

use crate::generic::rope::Angles;
use crate::kv::zeroed;

/// `[tokens, pairs]` each.
#[derive(Debug)]
pub(crate) struct Rotary {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotary {
    pub(crate) fn new(table: &RopeTable, tokens: usize) -> Result<Rotary> {
        let n = tokens * table.pairs.len();
        Ok(Rotary { cos: zeroed(n)?, sin: zeroed(n)? })
    }

    pub(crate) fn fill(&mut self, table: &RopeTable, batch: &Batch<'_>, axes: usize) {
        let pairs = table.pairs.len().max(1);
        let rows = self.cos.chunks_exact_mut(pairs).zip(self.sin.chunks_exact_mut(pairs));
        for ((cos, sin), positions) in rows.zip(batch.positions.chunks_exact(axes)) {
            for ((cos, sin), pair) in cos.iter_mut().zip(sin).zip(&table.pairs) {
                let angle = f64::from(positions[usize::from(pair.axis)]) * pair.frequency;
                let (s, c) = angle.sin_cos();
                (*cos, *sin) = ((c * table.magnitude) as f32, (s * table.magnitude) as f32);
            }
        }
    }

    pub(crate) fn of_token<'a>(&'a self, table: &RopeTable, token: usize) -> Angles<'a> {
        let range = token * table.pairs.len()..(token + 1) * table.pairs.len();
        Angles { cos: &self.cos[range.clone()], sin: &self.sin[range], layout: table.layout }
    }
}
