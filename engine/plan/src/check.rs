//! Shape rules of the ops.

use crate::plan::{BufferId, BufferSpec, KvSlot, KvSpec, Plan, Rows, Shape, WeightId};
use crate::{Error, Format, Op, Result};

pub(crate) struct Check<'a> {
    pub(crate) plan: &'a Plan,
}

fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::model(message())) }
}

impl Check<'_> {
    fn buffer(&self, id: BufferId) -> Result<&BufferSpec> {
        self.plan.buffers.get(id.index()).ok_or_else(|| Error::model(format!("no buffer {}", id.0)))
    }

    fn width(&self, id: BufferId, width: usize) -> Result<Rows> {
        let buffer = self.buffer(id)?;
        ensure(buffer.width == width, || {
            format!("buffer {} holds {} values per row, the op needs {width}", buffer.name, buffer.width)
        })?;
        Ok(buffer.rows)
    }

    /// All the same width and rows.
    fn alike(&self, ids: &[BufferId], width: usize) -> Result<()> {
        let rows = ids.iter().map(|&id| self.width(id, width)).collect::<Result<Vec<_>>>()?;
        ensure(rows.windows(2).all(|pair| pair[0] == pair[1]), || "token rows meet logits rows".into())
    }

    /// Buffers of different widths over the same rows.
    fn same_rows(&self, a: BufferId, b: BufferId) -> Result<()> {
        let (a, b) = (self.buffer(a)?, self.buffer(b)?);
        ensure(a.rows == b.rows, || format!("{} and {} have different rows", a.name, b.name))
    }

    fn distinct(&self, a: BufferId, b: BufferId) -> Result<()> {
        ensure(a != b, || format!("buffer {} is both read and written", a.0))
    }

    fn shape(&self, id: WeightId, shape: Shape) -> Result<()> {
        let weight =
            self.plan.weights.get(id.index()).ok_or_else(|| Error::model(format!("no weight {}", id.0)))?;
        ensure(weight.shape == shape, || {
            format!("{} has shape {}, the op needs {shape}", weight.name, weight.shape)
        })
    }

    /// A vector of f32 values, as norms and biases are stored.
    fn vector(&self, id: WeightId, len: usize) -> Result<()> {
        self.shape(id, Shape::vector(len))?;
        let weight = self.plan.weight(id);
        ensure(weight.format == Format::F32, || {
            format!("{} must be F32, it is {}", weight.name, weight.format)
        })
    }

    fn slot(&self, slot: KvSlot) -> Result<KvSpec> {
        self.plan.kv.get(slot.index()).copied().ok_or_else(|| Error::model(format!("no KV slot {}", slot.0)))
    }

    fn heads(&self, q: BufferId, slot: KvSlot, n_heads: usize) -> Result<KvSpec> {
        let kv = self.slot(slot)?;
        ensure(n_heads > 0 && kv.n_kv_heads > 0 && n_heads.is_multiple_of(kv.n_kv_heads), || {
            format!("{n_heads} query heads do not share {} KV heads evenly", kv.n_kv_heads)
        })?;
        let rows = self.width(q, n_heads * kv.head_dim)?;
        ensure(rows == Rows::Tokens, || "attention runs on token rows".into())?;
        Ok(kv)
    }

    fn matmul(&self, weight: WeightId, x: BufferId, out: BufferId) -> Result<()> {
        self.distinct(x, out)?;
        self.same_rows(x, out)?;
        self.shape(weight, Shape::matrix(self.buffer(out)?.width, self.buffer(x)?.width))
    }

    pub(crate) fn op(&self, op: &Op) -> Result<()> {
        match *op {
            Op::Embed { table, out, .. } => {
                let buffer = self.buffer(out)?;
                ensure(buffer.rows == Rows::Tokens, || "embeddings go to token rows".into())?;
                self.shape(table, Shape::matrix(self.plan.vocab, buffer.width))
            }
            Op::Norm { weight, bias, group, x, out, .. } => {
                let width = self.buffer(x)?.width;
                self.alike(&[x, out], width)?;
                ensure(group > 0 && width.is_multiple_of(group), || {
                    format!("groups of {group} do not divide a row of {width}")
                })?;
                self.vector(weight, group)?;
                bias.map_or(Ok(()), |bias| self.vector(bias, group))
            }
            Op::MatMul { weight, bias, residual, x, out } => {
                self.matmul(weight, x, out)?;
                let rows = self.buffer(out)?.width;
                bias.map_or(Ok(()), |bias| self.vector(bias, rows))?;
                residual.map_or(Ok(()), |residual| {
                    self.distinct(residual, x)?;
                    self.alike(&[residual, out], rows)
                })
            }
            Op::GatedMatMul { gate, up, x, scratch, out, .. } => {
                self.matmul(gate, x, scratch)?;
                self.matmul(up, x, out)?;
                self.distinct(scratch, out)?;
                self.alike(&[scratch, out], self.buffer(out)?.width)
            }
            Op::Rope { table, head_dim, x } => {
                let rope = self.plan.ropes.get(table.index());
                let rope = rope.ok_or_else(|| Error::model(format!("no rotary table {}", table.0)))?;
                let buffer = self.buffer(x)?;
                ensure(head_dim > 0 && buffer.width.is_multiple_of(head_dim), || {
                    format!("heads of {head_dim} do not divide a row of {}", buffer.width)
                })?;
                ensure(rope.rotary_dim() <= head_dim && buffer.rows == Rows::Tokens, || {
                    format!("{} rotary values do not fit heads of {head_dim}", rope.rotary_dim())
                })
            }
            Op::KvStore { slot, k, v } => {
                let kv = self.slot(slot)?;
                self.alike(&[k, v], kv.n_kv_heads * kv.head_dim)?;
                ensure(self.buffer(k)?.rows == Rows::Tokens, || "keys are stored for token rows".into())
            }
            Op::QueryStore { q, slot, n_heads, .. } => self.heads(q, slot, n_heads).map(|_| ()),
            Op::SelectPages { q, slot, n_heads, mask, out, .. } => {
                self.heads(q, slot, n_heads)?;
                ensure(mask.index() < self.plan.masks.len(), || format!("no mask {}", mask.0))?;
                ensure(out.index() < self.plan.selections, || format!("no selection {}", out.0))
            }
            Op::Attend { q, slot, n_heads, mask, selection, sink_scores, out, .. } => {
                let kv = self.heads(q, slot, n_heads)?;
                self.alike(&[q, out], n_heads * kv.head_dim)?;
                self.distinct(q, out)?;
                ensure(mask.index() < self.plan.masks.len(), || format!("no mask {}", mask.0))?;
                ensure(selection.is_none_or(|s| s.index() < self.plan.selections), || {
                    "no such selection".into()
                })?;
                sink_scores.map_or(Ok(()), |scores| self.vector(scores, n_heads))
            }
            Op::Activate { x, up, out, .. } => {
                let width = self.buffer(x)?.width;
                self.alike(&[x, up.unwrap_or(x), out], width)
            }
            Op::Add { a, b, out } => self.alike(&[a, b, out], self.buffer(a)?.width),
            Op::Scale { x, .. } | Op::Softcap { x, .. } => self.buffer(x).map(|_| ()),
            Op::TakeRows { x, out } => {
                let width = self.buffer(x)?.width;
                let rows = (self.width(x, width)?, self.width(out, width)?);
                ensure(rows == (Rows::Tokens, Rows::Logits), || "rows are taken from tokens to logits".into())
            }
            Op::Experts { router, top_k, gate, up, down, x, out, .. } => {
                let experts = self.buffer(router)?.width;
                let width = self.buffer(x)?.width;
                self.alike(&[x, out], width)?;
                self.same_rows(x, router)?;
                self.distinct(x, out)?;
                ensure((1..=experts).contains(&top_k), || format!("{top_k} of {experts} experts"))?;
                let missing = || Error::model("no such expert weight");
                let hidden = self.plan.weights.get(gate.index()).ok_or_else(missing)?.shape.rows;
                self.shape(gate, Shape { cols: width, rows: hidden, experts })?;
                self.shape(up, Shape { cols: width, rows: hidden, experts })?;
                self.shape(down, Shape { cols: hidden, rows: width, experts })
            }
            Op::TopK { x, k, values, indices } => {
                let width = self.buffer(x)?.width;
                ensure((1..=width).contains(&k) && width <= 1 << 24, || format!("top {k} of {width}"))?;
                self.same_rows(x, values)?;
                self.distinct(values, indices)?;
                self.alike(&[values, indices], k)
            }
        }
    }
}
