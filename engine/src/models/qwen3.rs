//! Qwen3 (arXiv 2505.09388): Qwen2 without the biases, with a norm on every head of Q and K before the rotation.

use cchaha_plan::{Activation, MaskRule, RopeLayout};

use super::builder::{Attention, Bias, Builder};
use crate::error::Result;

pub(super) fn build(b: &mut Builder<'_>) -> Result<()> {
    let norm = b.rms_norm()?;
    let attention = attention(b)?;

    let mut x = b.embed(1.0)?;
    for layer in b.layers() {
        b.enter(layer);
        let a = b.attention(norm, attention, &mut x)?;
        b.linear_add("attn_output", Bias::None, a, x)?;
        let f = b.gated(norm, Activation::Silu, x)?;
        b.linear_add("ffn_down", Bias::None, f, x)?;
    }
    b.output(norm, x)?;
    Ok(())
}

/// The attention of the dense models and of those with experts.
pub(super) fn attention(b: &mut Builder<'_>) -> Result<Attention> {
    let table = b.rotary(RopeLayout::Halves, 10000.0)?.scaled(b.keys(), None)?;
    Ok(Attention {
        bias: Bias::None,
        head_norms: true,
        rope: b.rope(table),
        mask: b.mask(MaskRule::CAUSAL),
        scale: b.dims().attention_scale(),
        softcap: None,
    })
}
