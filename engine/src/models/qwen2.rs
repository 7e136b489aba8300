//! Qwen2 and Qwen2.5 (arXiv 2407.10671): llama with biases on Q, K and V, and rotary pairs half a head apart.

use cchaha_plan::{Activation, MaskRule, RopeLayout};

use super::builder::{Attention, Bias, Builder};
use crate::error::Result;

pub(super) fn build(b: &mut Builder<'_>) -> Result<()> {
    let norm = b.rms_norm()?;
    let table = b.rotary(RopeLayout::Halves, 10000.0)?.scaled(b.keys(), None)?;
    let attention = Attention {
        bias: Bias::Required,
        head_norms: false,
        rope: b.rope(table),
        mask: b.mask(MaskRule::CAUSAL),
        scale: b.dims().attention_scale(),
        softcap: None,
    };

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
