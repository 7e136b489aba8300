//! StarCoder2 (arXiv 2402.19173): LayerNorm, biases everywhere, GELU without a gate, a sliding window on every
//! layer where the file names one (4096 in the published models; files made by some converters leave it out, and
//! then every token is seen).

use cchaha_plan::{Activation, MaskRule, RopeLayout};

use super::builder::{Attention, Bias, Builder};
use crate::error::Result;
use crate::rope::Rotary;

pub(super) fn build(b: &mut Builder<'_>) -> Result<()> {
    let dims = b.dims();
    let norm = b.layer_norm()?;
    let rotary = Rotary {
        dim: dims.rotary_dim,
        base: b.keys().positive_or("rope.freq_base", 10000.0)?,
        context: dims.context,
        layout: RopeLayout::Halves,
    };
    let table = rotary.scaled(b.keys(), None)?;
    let rope = b.rope(table);
    let window = b.keys().u32_above_0("attention.sliding_window")?;
    let mask = b.mask(MaskRule { window, ..MaskRule::CAUSAL });
    let attention = Attention { mask, scale: dims.attention_scale(), softcap: None };

    let mut x = b.embed(1.0)?;
    for layer in b.layers() {
        b.enter(layer);
        let h = b.norm(norm, "attn_norm", x)?;
        let q = b.linear("attn_q", Bias::Required, h, dims.q_width())?;
        let k = b.linear("attn_k", Bias::Required, h, dims.kv_width())?;
        let v = b.linear("attn_v", Bias::Required, h, dims.kv_width())?;
        b.rotate(rope, q);
        b.rotate(rope, k);
        let a = b.attend(attention, q, k, v);
        let [a, residual] = b.wanted_rows([a, x]);
        x = residual;
        b.linear_add("attn_output", Bias::Required, a, x)?;
        let h = b.norm(norm, "ffn_norm", x)?;
        let f = b.linear("ffn_up", Bias::Required, h, dims.n_ff)?;
        b.activate(Activation::GeluTanh, f);
        b.linear_add("ffn_down", Bias::Required, f, x)?;
    }
    b.output(norm, x)?;
    Ok(())
}
