//! Where activation buffers lie in the arena, and which matrix products are one dispatch.
//!
//! Products of the same input (query, key, value) write to buffers that lie side by side in one row, so that their
//! weights, stacked, are one matrix.

use cchaha_plan::{BufferId, Limits, Op, Plan, Rows};

use crate::formats::RUN;

/// Base and stride of a buffer, in floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) base: u32,
    pub(crate) stride: u32,
}

/// Places of all buffers.
#[derive(Clone, Debug)]
pub(crate) struct Arena {
    pub(crate) places: Vec<Place>,
    /// Floats in all.
    pub(crate) len: usize,
    /// Buffers that lie side by side.
    stacks: Vec<Vec<BufferId>>,
}

impl Arena {
    pub(crate) fn new(plan: &Plan, limits: &Limits) -> Arena {
        let stacks = stacks(plan);
        let mut arena =
            Arena { places: vec![Place::default(); plan.buffers.len()], len: 0, stacks: Vec::new() };
        for stack in &stacks {
            let width = stack.iter().map(|&id| plan.buffer(id).width).sum();
            let mut place = arena.take(width, row_limit(plan.buffer(stack[0]).rows, limits));
            for &id in stack {
                arena.places[id.index()] = place;
                place.base += plan.buffer(id).width as u32;
            }
        }
        for (i, buffer) in plan.buffers.iter().enumerate() {
            let id = BufferId(i as u32);
            if !stacks.iter().any(|stack| stack.contains(&id)) {
                arena.places[i] = arena.take(buffer.width, row_limit(buffer.rows, limits));
            }
        }
        arena.stacks = stacks;
        arena
    }

    /// `rows` rows of `width` floats at a stride of whole runs. Where it grows beyond u32 the caller's limit check refuses.
    pub(crate) fn take(&mut self, width: usize, rows: usize) -> Place {
        let stride = width.next_multiple_of(RUN);
        let place = Place { base: self.len as u32, stride: stride as u32 };
        self.len = self.len.saturating_add(stride.saturating_mul(rows));
        place
    }

    pub(crate) fn place(&self, id: BufferId) -> Place {
        self.places[id.index()]
    }

    /// Whether `b` lies right of `a` in the same rows.
    pub(crate) fn neighbours(&self, a: BufferId, b: BufferId) -> bool {
        self.stacks.iter().any(|stack| stack.windows(2).any(|pair| pair == [a, b]))
    }
}

/// The most rows there can be.
pub(crate) fn row_limit(rows: Rows, limits: &Limits) -> usize {
    match rows {
        Rows::Tokens => limits.batch,
        Rows::Logits => limits.logits,
    }
}

/// Whether other buffers may lie beside this one. A product reads whole runs and must not take a neighbour's values for padding.
fn stackable(plan: &Plan, id: BufferId) -> bool {
    let width = plan.buffer(id).width;
    let multiplied = || {
        plan.steps.iter().any(|step| match step.op {
            Op::MatMul { x, .. } | Op::GatedMatMul { x, .. } | Op::Experts { x, .. } => x == id,
            _ => false,
        })
    };
    width.is_multiple_of(RUN) || (width.is_multiple_of(4) && !multiplied())
}

/// Runs of products with the same input. A buffer joins at most one stack, always at the same place.
fn stacks(plan: &Plan) -> Vec<Vec<BufferId>> {
    let mut stacks: Vec<Vec<BufferId>> = Vec::new();
    let mut at = 0;
    while at < plan.steps.len() {
        let mut stack = Vec::new();
        let mut input = None;
        while let Some(step) = plan.steps.get(at + stack.len()) {
            let Op::MatMul { residual: None, x, out, .. } = step.op else { break };
            if input.is_some_and(|input| input != x) || stack.contains(&out) || !stackable(plan, out) {
                break;
            }
            input = Some(x);
            stack.push(out);
        }
        at += stack.len().max(1);
        let taken = |id: &BufferId| stacks.iter().any(|stack| stack.contains(id));
        if stack.len() > 1 && !stack.iter().any(taken) {
            stacks.push(stack);
        }
    }
    stacks
}
