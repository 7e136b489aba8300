//! StarCoder2 (arXiv 2402.19173): LayerNorm, biases everywhere, GELU without a gate, a sliding window on every
//! layer where the file names one (4096 in the published models; files made by some converters leave it out, and
//! then every token is seen).

use cchaha_plan::{Activation, RopeLayout};

use super::builder::{Attention, Bias, Builder};
use crate::error::Result;

pub(super) fn build(b: &mut Builder<'_>) -> Result<()> {
    let n_ff = b.dims().n_ff;
    let norm = b.layer_norm()?;
    let table = b.rotary(RopeLayout::Halves, 10000.0)?.scaled(b.keys(), None)?;
    let attention = Attention {
        bias: Bias::Required,
        head_norms: false,
        rope: b.rope(table),
        mask: b.window_mask()?,
        scale: b.dims().attention_scale(),
        softcap: None,
    };

    let mut x = b.embed(1.0)?;
    for layer in b.layers() {
        b.enter(layer);
        let a = b.attention(norm, attention, &mut x)?;
        b.linear_add("attn_output", Bias::Required, a, x)?;
        let h = b.norm(norm, "ffn_norm", x)?;
        let f = b.linear("ffn_up", Bias::Required, h, n_ff)?;
        b.activate(Activation::GeluTanh, f);
        b.linear_add("ffn_down", Bias::Required, f, x)?;
    }
    b.output(norm, x)?;
    Ok(())
}
