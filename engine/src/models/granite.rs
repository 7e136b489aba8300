//! IBM Granite 3 (model cards of granite-3.x-base): llama with fixed factors on embeddings, attention scores, the
//! output of every block and the logits.

use cchaha_plan::{Activation, MaskRule, RopeLayout};

use super::builder::{Attention, Bias, Builder};
use crate::error::Result;

pub(super) fn build(b: &mut Builder<'_>) -> Result<()> {
    let n_embd = b.dims().n_embd;
    let norm = b.rms_norm()?;
    // Granite's files use this key to say whether heads turn at all.
    if b.keys().bool("rope.scaling.finetuned")? == Some(false) {
        return Err(b.keys().error(
            "rope.scaling.finetuned",
            "is false, which asks for attention without positions; supported is only true",
        ));
    }
    let factors = b.rope_factors()?;
    let table = b.rotary(RopeLayout::Interleaved, 10000.0)?.scaled(b.keys(), factors.as_deref())?;
    let attention = Attention {
        bias: Bias::Optional,
        head_norms: false,
        rope: b.rope(table),
        mask: b.mask(MaskRule::CAUSAL),
        scale: b.attention_scale()?,
        softcap: None,
    };
    let embedding_scale = b.keys().positive_or("embedding_scale", 1.0)?;
    let residual_scale = b.keys().positive_or("residual_scale", 1.0)? as f32;
    let logit_scale = b.keys().positive_or("logit_scale", 1.0)?;

    let mut x = b.embed(embedding_scale as f32)?;
    for layer in b.layers() {
        b.enter(layer);
        let a = b.attention(norm, attention, &mut x)?;
        let a = b.linear("attn_output", Bias::Optional, a, n_embd)?;
        b.scale(residual_scale, a);
        b.add(a, x);
        let f = b.gated(norm, Activation::Silu, x)?;
        let f = b.linear("ffn_down", Bias::None, f, n_embd)?;
        b.scale(residual_scale, f);
        b.add(f, x);
    }
    let logits = b.output(norm, x)?;
    b.scale((1.0 / logit_scale) as f32, logits);
    Ok(())
}
