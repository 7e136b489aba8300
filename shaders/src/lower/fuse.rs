//! Which steps of a plan are one dispatch.

use cchaha_plan::{BufferId, KvSlot, NormKind, Op, RopeId, WeightId};

use super::Lower;

/// What [`Lower::fused_heads`] does at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    pub(super) q: BufferId,
    pub(super) k: BufferId,
    pub(super) v: BufferId,
    pub(super) slot: KvSlot,
    pub(super) table: RopeId,
    /// Weight and eps of the norms of q and k.
    pub(super) norms: [Option<(WeightId, f32)>; 2],
}

impl<'a> Lower<'a> {
    /// How many products from step `at` on can be one: same input and format, outputs side by side.
    pub(super) fn products(&self, at: usize) -> usize {
        let product = |i: usize| match self.plan.steps.get(i)?.op {
            Op::MatMul { weight, residual: None, x, out, .. } => {
                Some((self.plan.weight(weight).format, x, out))
            }
            _ => None,
        };
        let Some((format, input, mut last)) = product(at) else { return 0 };
        let mut n = 1;
        while let Some((other, x, out)) = product(at + n) {
            if other != format || x != input || !self.arena.neighbours(last, out) {
                break;
            }
            (last, n) = (out, n + 1);
        }
        n
    }

    /// The steps between the projections and the attention, if they are what one kernel does: norms and rotary turns of q and
    /// k heads, then the store.
    pub(super) fn heads(&self, at: usize) -> Option<(usize, Heads)> {
        let window = &self.plan.steps[at..];
        let n = window.iter().position(|step| !matches!(step.op, Op::Norm { .. } | Op::Rope { .. }))?;
        let Op::KvStore { slot, k, v } = window[n].op else { return None };
        let head_dim = self.plan.kv[slot.index()].head_dim;
        let mut q = None;
        let (mut norms, mut turned) = ([None, None], [None, None]);
        for step in &window[..n] {
            let (x, is_norm) = match step.op {
                Op::Norm { kind: NormKind::Rms, bias: None, group, x, out, .. }
                    if x == out && group == head_dim =>
                {
                    (x, true)
                }
                Op::Rope { head_dim: d, x, .. } if d == head_dim => (x, false),
                _ => return None,
            };
            if x != k && *q.get_or_insert(x) != x {
                return None;
            }
            let which = usize::from(x == k);
            match step.op {
                Op::Norm { weight, eps, .. }
                    if is_norm && norms[which].is_none() && turned[which].is_none() =>
                {
                    norms[which] = Some((weight, eps));
                }
                Op::Rope { table, .. } if turned[which].is_none() => turned[which] = Some(table),
                _ => return None,
            }
        }
        let q = q?;
        let [q_turned, k_turned] = turned;
        let same_eps = norms[0].zip(norms[1]).is_none_or(|(a, b)| a.1 == b.1);
        let fits = q_turned.is_some() && q_turned == k_turned && same_eps && q != k && q != v && k != v;
        // The kernel leaves k in the cache only; nobody may look for it in its buffer.
        if !fits || self.read_later(at + n + 1, k) {
            return None;
        }
        Some((n + 1, Heads { q, k, v, slot, table: q_turned?, norms }))
    }

    /// The attention at `at` of the queries and in the cache that `heads` prepares, where nothing else looks at those queries.
    pub(super) fn attended(&self, at: usize, heads: &Heads) -> Option<&'a Op> {
        let op = &self.plan.steps.get(at)?.op;
        let Op::Attend { q, slot, .. } = *op else { return None };
        (q == heads.q && slot == heads.slot && !self.read_later(at + 1, q)).then_some(op)
    }

    /// Whether a step from `at` on reads the buffer before one writes it.
    fn read_later(&self, at: usize, id: BufferId) -> bool {
        for step in &self.plan.steps[at..] {
            match step.op {
                Op::MatMul { residual, x, out, .. } => {
                    if x == id || residual == Some(id) {
                        return true;
                    }
                    if out == id {
                        return false;
                    }
                }
                Op::Embed { out, .. } if out == id => return false,
                Op::Embed { .. } => {}
                Op::GatedMatMul { x, .. } if x == id => return true,
                Op::Norm { x, .. } | Op::Rope { x, .. } | Op::Scale { x, .. } | Op::Softcap { x, .. }
                    if x == id =>
                {
                    return true;
                }
                Op::KvStore { k, v, .. } if k == id || v == id => return true,
                Op::QueryStore { q, .. } | Op::SelectPages { q, .. } | Op::Attend { q, .. } if q == id => {
                    return true;
                }
                Op::Activate { x, up, .. } if x == id || up == Some(id) => return true,
                Op::Add { a, b, .. } if a == id || b == id => return true,
                Op::TakeRows { x, .. } | Op::TopK { x, .. } if x == id => return true,
                Op::Experts { router, x, .. } if router == id || x == id => return true,
                _ => {}
            }
        }
        self.plan.logits == id
    }
}
