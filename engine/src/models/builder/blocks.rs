//! The two blocks of a decoder layer up to their last product: what models do after it is where they differ.

use cchaha_plan::{
    Activation, BufferId, BufferSpec, KvSlot, KvSpec, MaskId, Op, RopeId, Routing, Rows, Shape,
};

use super::{Bias, Builder, Dims, Norm};
use crate::error::Result;

/// How a layer attends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    /// Whether Q, K and V have biases.
    pub(crate) bias: Bias,
    /// Whether every head of Q and K is normalized before it turns.
    pub(crate) head_norms: bool,
    /// How heads turn.
    pub(crate) rope: RopeId,
    /// Which cells are visible.
    pub(crate) mask: MaskId,
    /// Factor on scores.
    pub(crate) scale: f32,
    /// Soft cap on scores.
    pub(crate) softcap: Option<f32>,
}

impl Builder<'_> {
    /// Norm, Q, K, V, rotation and attention: what all heads have seen, for the layer's output product. After it,
    /// the last layer goes on with the rows whose logits are wanted, and so does `residual`.
    pub(crate) fn attention(
        &mut self,
        norm: Norm,
        attention: Attention,
        residual: &mut BufferId,
    ) -> Result<BufferId> {
        let (dims, Attention { bias, rope, .. }) = (self.dims, attention);
        let h = self.norm(norm, "attn_norm", *residual)?;
        let q = self.linear("attn_q", bias, h, dims.q_width())?;
        let k = self.linear("attn_k", bias, h, dims.kv_width())?;
        let v = self.linear("attn_v", bias, h, dims.kv_width())?;
        if attention.head_norms {
            self.norm_groups(norm, "attn_q_norm", dims.head_dim, q, q)?;
            self.norm_groups(norm, "attn_k_norm", dims.head_dim, k, k)?;
        }
        self.step(Op::Rope { table: rope, head_dim: dims.head_dim, x: q });
        self.step(Op::Rope { table: rope, head_dim: dims.head_dim, x: k });
        let attended = self.attend(attention, q, k, v);
        let [attended, wanted] = self.wanted_rows([attended, *residual]);
        *residual = wanted;
        Ok(attended)
    }

    /// Stores keys and values and attends to all that are visible.
    fn attend(&mut self, attention: Attention, q: BufferId, k: BufferId, v: BufferId) -> BufferId {
        let Dims { n_heads, n_kv_heads, head_dim, .. } = self.dims;
        self.plan.kv.push(KvSpec { n_kv_heads, head_dim });
        let slot = KvSlot(self.plan.kv.len() as u32 - 1);
        let out = self.buffer("attended", n_heads * head_dim, q);
        self.step(Op::KvStore { slot, k, v });
        let Attention { mask, scale, softcap, .. } = attention;
        let (selection, sink_scores) = (None, None);
        self.step(Op::Attend { q, slot, n_heads, scale, softcap, mask, selection, sink_scores, out });
        out
    }

    fn wanted_rows<const N: usize>(&mut self, buffers: [BufferId; N]) -> [BufferId; N] {
        if self.layer.is_none_or(|layer| layer as usize + 1 != self.dims.n_layers) {
            return buffers;
        }
        buffers.map(|x| {
            let spec = BufferSpec { rows: Rows::Logits, ..self.plan.buffer(x).clone() };
            let out = self.buffer_of(spec);
            self.step(Op::TakeRows { x, out });
            out
        })
    }

    /// `activation(gate h) * (up h)` with `h` the normed residual: a gated feed-forward block (arXiv 2002.05202) up to
    /// `ffn_down`.
    pub(crate) fn gated(
        &mut self,
        norm: Norm,
        activation: Activation,
        residual: BufferId,
    ) -> Result<BufferId> {
        let x = self.norm(norm, "ffn_norm", residual)?;
        let shape = Shape::matrix(self.dims.n_ff, self.width(x));
        let gate = self.weight("ffn_gate.weight", shape)?;
        let up = self.weight("ffn_up.weight", shape)?;
        let scratch = self.buffer("ffn_gate", self.dims.n_ff, x);
        let out = self.buffer("ffn_up", self.dims.n_ff, x);
        self.step(Op::GatedMatMul { gate, up, activation, x, scratch, out });
        Ok(out)
    }

    /// The whole feed-forward block as a mixture of gated experts (arXiv 1701.06538), of the sizes the file's
    /// `expert_*` keys give.
    pub(crate) fn experts(
        &mut self,
        norm: Norm,
        activation: Activation,
        routing: Routing,
        residual: BufferId,
    ) -> Result<BufferId> {
        let experts = self.keys.count("expert_count")?;
        let top_k = self.keys.count("expert_used_count")?;
        if top_k > experts {
            return Err(self.keys.error("expert_used_count", format!("is {top_k} of {experts} experts")));
        }
        let (width, hidden) = (self.width(residual), self.keys.count("expert_feed_forward_length")?);
        let x = self.norm(norm, "ffn_norm", residual)?;
        let router = self.linear("ffn_gate_inp", Bias::None, x, experts)?;
        let gate = self.weight("ffn_gate_exps.weight", Shape { cols: width, rows: hidden, experts })?;
        let up = self.weight("ffn_up_exps.weight", Shape { cols: width, rows: hidden, experts })?;
        let down = self.weight("ffn_down_exps.weight", Shape { cols: hidden, rows: width, experts })?;
        let out = self.buffer("ffn_out", width, x);
        self.step(Op::Experts { router, routing, top_k, gate, up, down, activation, x, out });
        Ok(out)
    }
}
