//! LLaMA (arXiv 2302.13971) and its many relatives: CodeLlama, DeepSeek-Coder, Mistral, SmolLM2, Seed-Coder.
//!
//! GGUF files store the rows of Q and K so that the two values of a rotary pair lie side by side.

use cchaha_plan::{Activation, RopeLayout};

use super::builder::{Attention, Bias, Builder};
use crate::error::Result;

pub(super) fn build(b: &mut Builder<'_>) -> Result<()> {
    let norm = b.rms_norm()?;
    let factors = b.rope_factors()?;
    let table = b.rotary(RopeLayout::Interleaved, 10000.0)?.scaled(b.keys(), factors.as_deref())?;
    let attention = Attention {
        bias: Bias::Optional,
        head_norms: false,
        rope: b.rope(table),
        mask: b.window_mask()?,
        scale: b.attention_scale()?,
        softcap: None,
    };

    let mut x = b.embed(1.0)?;
    for layer in b.layers() {
        b.enter(layer);
        let a = b.attention(norm, attention, &mut x)?;
        b.linear_add("attn_output", Bias::Optional, a, x)?;
        let f = b.gated(norm, Activation::Silu, x)?;
        b.linear_add("ffn_down", Bias::None, f, x)?;
    }
    b.output(norm, x)?;
    Ok(())
}
