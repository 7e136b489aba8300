//! Norm weights, biases and sink scores: one read-only buffer of f32.

use std::collections::HashMap;

use cchaha_plan::{Op, Plan, WeightId};

use crate::args::NONE;

/// A bias of so many rows, or none.
type Part = (Option<WeightId>, usize);

/// Values and where they lie.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vectors {
    pub(crate) values: Vec<f32>,
    places: HashMap<WeightId, u32>,
    stacks: HashMap<Vec<Part>, u32>,
}

impl Vectors {
    pub(crate) fn new(plan: &Plan) -> Vectors {
        let mut vectors = Vectors::default();
        let mut biases: Vec<Part> = Vec::new();
        for step in &plan.steps {
            let ids = match step.op {
                Op::Norm { weight, bias, .. } => [Some(weight), bias],
                Op::MatMul { bias, .. } => [bias, None],
                Op::Attend { sink_scores, .. } => [sink_scores, None],
                _ => [None, None],
            };
            for id in ids.into_iter().flatten() {
                vectors.add(plan, id);
            }
            // Every run of products may turn out to be one; its biases are needed one after the other.
            if let Op::MatMul { bias, residual: None, out, .. } = step.op {
                biases.push((bias, plan.buffer(out).width));
                for start in 0..biases.len() {
                    let stack = &biases[start..];
                    if stack.len() > 1 && stack.iter().any(|(bias, _)| bias.is_some()) {
                        vectors.add_stack(plan, stack.to_vec());
                    }
                }
            } else {
                biases.clear();
            }
        }
        vectors
    }

    fn add(&mut self, plan: &Plan, id: WeightId) {
        if !self.places.contains_key(&id) {
            self.places.insert(id, self.values.len() as u32);
            self.values.extend(floats(plan, id));
        }
    }

    fn add_stack(&mut self, plan: &Plan, stack: Vec<Part>) {
        if self.stacks.contains_key(&stack) {
            return;
        }
        let at = self.values.len() as u32;
        for &(bias, rows) in &stack {
            match bias {
                Some(id) => self.values.extend(floats(plan, id)),
                None => self.values.extend(std::iter::repeat_n(0.0, rows)),
            }
        }
        self.stacks.insert(stack, at);
    }

    pub(crate) fn at(&self, id: WeightId) -> u32 {
        self.places[&id]
    }

    pub(crate) fn optional(&self, id: Option<WeightId>) -> u32 {
        id.map_or(NONE, |id| self.at(id))
    }

    /// The biases of stacked products; [`NONE`] where none has one.
    pub(crate) fn stacked(&self, biases: &[Part]) -> u32 {
        self.stacks.get(biases).copied().unwrap_or(NONE)
    }
}

fn floats(plan: &Plan, id: WeightId) -> impl Iterator<Item = f32> + '_ {
    plan.weight(id).bytes.as_slice().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes))
}
