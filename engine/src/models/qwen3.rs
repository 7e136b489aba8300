//! Qwen3 (arXiv 2505.09388): Qwen2 without the biases, with a norm on every head of Q and K before the rotation.

use cchaha_plan::{Activation, MaskRule, RopeLayout};

use super::builder::{Attention, Bias, Builder};
use crate::error::Result;
use crate::rope::Rotary;

pub(super) fn build(b: &mut Builder<'_>) -> Result<()> {
    let dims = b.dims();
    let norm = b.rms_norm()?;
    let rotary = Rotary {
        dim: dims.rotary_dim,
        base: b.keys().positive_or("rope.freq_base", 10000.0)?,
        context: dims.context,
        layout: RopeLayout::Halves,
    };
    let table = rotary.scaled(b.keys(), None)?;
    let rope = b.rope(table);
    let mask = b.mask(MaskRule::CAUSAL);
    let attention = Attention { mask, scale: dims.attention_scale(), softcap: None };

    let mut x = b.embed(1.0)?;
    for layer in b.layers() {
        b.enter(layer);
        let h = b.norm(norm, "attn_norm", x)?;
        let q = b.linear("attn_q", Bias::None, h, dims.q_width())?;
        let k = b.linear("attn_k", Bias::None, h, dims.kv_width())?;
        let v = b.linear("attn_v", Bias::None, h, dims.kv_width())?;
        b.norm_heads(norm, "attn_q_norm", q)?;
        b.norm_heads(norm, "attn_k_norm", k)?;
        b.rotate(rope, q);
        b.rotate(rope, k);
        let a = b.attend(attention, q, k, v);
        let [a, residual] = b.wanted_rows([a, x]);
        x = residual;
        b.linear_add("attn_output", Bias::None, a, x)?;
        let h = b.norm(norm, "ffn_norm", x)?;
        let f = b.gated(Activation::Silu, h)?;
        b.linear_add("ffn_down", Bias::None, f, x)?;
    }
    b.output(norm, x)?;
    Ok(())
}
