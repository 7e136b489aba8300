//! Gemma 3 (arXiv 2503.19786), text only: five layers that see a sliding window, then one that sees everything,
//! each kind with its own rotary base; norms before and after every block and on the heads of Q and K; GELU
//! gates; embeddings times `sqrt(n_embd)`. GGUF files store norm weights with their 1 already added.

use cchaha_plan::{Activation, MaskRule, RopeLayout};

use super::builder::{Attention, Bias, Builder};
use crate::error::Result;
use crate::rope::Rotary;

/// Every sixth layer is global unless the file has another pattern.
const PERIOD: u32 = 6;

/// The 27B model scales scores by `1 / sqrt(n_embd / n_heads)`, the others by `1 / sqrt(head_dim)`. No key tells
/// them apart; its number of layers does.
const LAYERS_OF_27B: usize = 62;

pub(super) fn build(b: &mut Builder<'_>) -> Result<()> {
    let dims = b.dims();
    let norm = b.rms_norm()?;
    let rotary = b.rotary(RopeLayout::Halves, 1e6)?;
    let global_table = rotary.scaled(b.keys(), None)?;
    let local_base = b.keys().positive_or("rope.freq_base_swa", 10000.0)?;
    let global = Attention {
        bias: Bias::None,
        head_norms: true,
        rope: b.rope(global_table),
        mask: b.mask(MaskRule::CAUSAL),
        scale: match dims.n_layers {
            LAYERS_OF_27B => (1.0 / ((dims.n_embd / dims.n_heads) as f64).sqrt()) as f32,
            _ => dims.attention_scale(),
        },
        softcap: b.keys().cap("attn_logit_softcapping")?,
    };
    let local = Attention {
        // The file's scaling stretches the global layers only.
        rope: b.rope(Rotary { base: local_base, ..rotary }.unscaled()),
        mask: b.window_mask()?,
        ..global
    };
    let windowed = b.windowed_layers(PERIOD)?;
    let has_window = local.mask != global.mask;
    let final_softcap = b.keys().cap("final_logit_softcapping")?;

    let mut x = b.embed((dims.n_embd as f64).sqrt() as f32)?;
    for layer in b.layers() {
        b.enter(layer);
        let attention = if has_window && windowed[layer as usize] { local } else { global };
        let a = b.attention(norm, attention, &mut x)?;
        let a = b.linear("attn_output", Bias::None, a, dims.n_embd)?;
        b.norm_in_place(norm, "post_attention_norm", a)?;
        b.add(a, x);
        let f = b.gated(norm, Activation::GeluTanh, x)?;
        let f = b.linear("ffn_down", Bias::None, f, dims.n_embd)?;
        b.norm_in_place(norm, "post_ffw_norm", f)?;
        b.add(f, x);
    }
    let logits = b.output(norm, x)?;
    if let Some(cap) = final_softcap {
        b.softcap(cap, logits);
    }
    Ok(())
}
