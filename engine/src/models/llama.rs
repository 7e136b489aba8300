//! LLaMA (arXiv 2302.13971) and its many relatives: CodeLlama, DeepSeek-Coder, Mistral, SmolLM2, Seed-Coder.
//!
//! GGUF files store the rows of Q and K so that the two values of a rotary pair lie side by side.

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
        layout: RopeLayout::Interleaved,
    };
    let factors = b.rope_factors()?;
    let table = rotary.scaled(b.keys(), factors.as_deref())?;
    let rope = b.rope(table);
    let window = b.keys().u32_above_0("attention.sliding_window")?;
    let attention = Attention {
        mask: b.mask(MaskRule { window, ..MaskRule::CAUSAL }),
        scale: b.keys().f64("attention.scale")?.map_or(dims.attention_scale(), |scale| scale as f32),
        softcap: None,
    };

    let mut x = b.embed(1.0)?;
    for layer in b.layers() {
        b.enter(layer);
        let h = b.norm(norm, "attn_norm", x)?;
        let q = b.linear("attn_q", Bias::Optional, h, dims.q_width())?;
        let k = b.linear("attn_k", Bias::Optional, h, dims.kv_width())?;
        let v = b.linear("attn_v", Bias::Optional, h, dims.kv_width())?;
        b.rotate(rope, q);
        b.rotate(rope, k);
        let a = b.attend(attention, q, k, v);
        let [a, residual] = b.wanted_rows([a, x]);
        x = residual;
        b.linear_add("attn_output", Bias::Optional, a, x)?;
        let h = b.norm(norm, "ffn_norm", x)?;
        let f = b.gated(Activation::Silu, h)?;
        b.linear_add("ffn_down", Bias::None, f, x)?;
    }
    b.output(norm, x)?;
    Ok(())
}
