//! A plan in two parts, for devices that each compute some of the layers.

use crate::plan::{BufferId, BufferSpec, KvSlot, Plan, Rows, Step};
use crate::{Error, Op, Result};

/// The first layers of a plan, and the rest. One row of `out` after the first part is one row of `handed` before the second:
/// what [`crate::Runner::fill`] takes.
#[derive(Clone, Debug)]
pub struct Split {
    /// Gives back the handed values of every token that it is asked for, `[logits rows, width]`.
    pub first: Plan,
    /// Begins with `handed` filled.
    pub rest: Plan,
    /// The buffer that crosses, `[tokens, width]`.
    pub handed: BufferId,
}

impl Plan {
    /// Layers.
    pub fn layers(&self) -> usize {
        self.steps.iter().filter_map(|step| step.layer).max().map_or(0, |last| last as usize + 1)
    }

    /// Cuts the plan before layer `layers`, which is at least 1 and less than [`Plan::layers`]. Each part has the KV cache of its
    /// own layers only.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] where more than one buffer would cross, or layers are not in order.
    pub fn split(&self, layers: usize) -> Result<Split> {
        let cut = self.steps.iter().position(|step| step.layer.is_some_and(|layer| layer as usize >= layers));
        let cut = cut.filter(|&cut| layers > 0 && cut > 0).ok_or_else(|| {
            Error::unsupported(format!("a model of {} layers cannot be cut after {layers}", self.layers()))
        })?;
        let (before, after) = self.steps.split_at(cut);
        if before.iter().any(|step| step.layer.is_some_and(|layer| layer as usize >= layers)) {
            return Err(Error::unsupported("a model whose layers are not in order cannot be cut"));
        }
        let handed = match crossing(before, after).as_slice() {
            &[one] if self.buffer(one).rows == Rows::Tokens => one,
            _ => return Err(Error::unsupported("a model that hands on more than one buffer cannot be cut")),
        };
        let mut first = self.part(before);
        first.hand_out(handed);
        Ok(Split { first, rest: self.part(after), handed })
    }

    /// One layer by itself, and the buffer that it reads and changes: `[tokens, width]`, whose rows come back as logits do. None for a
    /// layer with another shape, such as one that drops rows.
    pub fn layer(&self, layer: usize) -> Option<(Plan, BufferId)> {
        let own: Vec<Step> =
            self.steps.iter().filter(|step| step.layer == Some(layer as u32)).cloned().collect();
        let (mut needed, mut written) = (Vec::new(), Vec::new());
        for step in &own {
            let (reads, writes) = step.op.buffers();
            needed.extend(reads.into_iter().filter(|id| !written.contains(id)));
            written.extend(writes);
        }
        needed.sort_unstable();
        needed.dedup();
        let &[x] = needed.as_slice() else { return None };
        if !written.contains(&x) || own.iter().any(|step| matches!(step.op, Op::TakeRows { .. })) {
            return None;
        }
        let mut plan = self.part(&own);
        plan.hand_out(x);
        Some((plan, x))
    }

    /// Gives back the rows of a buffer in place of logits.
    fn hand_out(&mut self, x: BufferId) {
        let out = BufferId(self.buffers.len() as u32);
        self.buffers.push(BufferSpec { name: "handed", width: self.buffer(x).width, rows: Rows::Logits });
        self.steps.push(Step { op: Op::TakeRows { x, out }, layer: None });
        (self.logits, self.hands_on) = (out, true);
    }

    /// Some of the steps, with the KV slots they use.
    fn part(&self, steps: &[Step]) -> Plan {
        let mut part = Plan { steps: steps.to_vec(), kv: Vec::new(), ..self.clone() };
        let mut slots: Vec<KvSlot> = Vec::new();
        for step in &mut part.steps {
            if let Some(slot) = slot_of(&mut step.op) {
                let known = slots.iter().position(|known| known == slot).unwrap_or_else(|| {
                    slots.push(*slot);
                    slots.len() - 1
                });
                *slot = KvSlot(known as u32);
            }
        }
        part.kv = slots.iter().map(|slot| self.kv[slot.index()]).collect();
        part
    }
}

fn slot_of(op: &mut Op) -> Option<&mut KvSlot> {
    match op {
        Op::KvStore { slot, .. }
        | Op::QueryStore { slot, .. }
        | Op::SelectPages { slot, .. }
        | Op::Attend { slot, .. } => Some(slot),
        _ => None,
    }
}

/// Buffers written before the cut that are read after it before they are written again.
fn crossing(before: &[Step], after: &[Step]) -> Vec<BufferId> {
    let mut written: Vec<BufferId> = Vec::new();
    let mut crossing = Vec::new();
    for step in after {
        let (reads, writes) = step.op.buffers();
        for id in reads {
            let made = before.iter().any(|step| step.op.buffers().1.contains(&id));
            if made && !written.contains(&id) && !crossing.contains(&id) {
                crossing.push(id);
            }
        }
        written.extend(writes);
    }
    crossing
}

impl Op {
    /// Buffers it reads and buffers it writes; what it changes in place is in both.
    pub fn buffers(&self) -> (Vec<BufferId>, Vec<BufferId>) {
        match *self {
            Op::Embed { out, .. } => (vec![], vec![out]),
            Op::Norm { x, out, .. } | Op::TakeRows { x, out } => (vec![x], vec![out]),
            Op::MatMul { residual, x, out, .. } => {
                ([Some(x), residual].into_iter().flatten().collect(), vec![out])
            }
            Op::GatedMatMul { x, scratch, out, .. } => (vec![x], vec![scratch, out]),
            Op::Rope { x, .. } | Op::Scale { x, .. } | Op::Softcap { x, .. } => (vec![x], vec![x]),
            Op::KvStore { k, v, .. } => (vec![k, v], vec![]),
            Op::QueryStore { q, .. } | Op::SelectPages { q, .. } => (vec![q], vec![]),
            Op::Attend { q, out, .. } => (vec![q], vec![out]),
            Op::Activate { x, up, out, .. } => ([Some(x), up].into_iter().flatten().collect(), vec![out]),
            Op::Add { a, b, out } => (vec![a, b], vec![out]),
            Op::Experts { router, x, out, .. } => (vec![router, x], vec![out]),
            Op::TopK { x, values, indices, .. } => (vec![x], vec![values, indices]),
        }
    }
}
