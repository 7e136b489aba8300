//! Gemma 3 (arXiv 2503.19786), text only: five layers that see a sliding window, then one that sees everything,
//! each kind with its own rotary base; norms before and after every block and on the heads of Q and K; GELU
//! gates; embeddings times `sqrt(n_embd)`. GGUF files store norm weights with their 1 already added.

use cchaha_plan::{Activation, MaskRule, RopeLayout};

use super::builder::{Attention, Bias, Builder};
use super::keys::BoolsOrU32;
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
    let global = Rotary {
        dim: dims.rotary_dim,
        base: b.keys().positive_or("rope.freq_base", 1e6)?,
        context: dims.context,
        layout: RopeLayout::Halves,
    };
    let local = Rotary { base: b.keys().positive_or("rope.freq_base_swa", 10000.0)?, ..global };
    let global_table = global.scaled(b.keys(), None)?;
    // The file's scaling stretches the global layers only.
    let ropes = [b.rope(global_table), b.rope(local.unscaled())];
    let window = b.keys().u32_above_0("attention.sliding_window")?;
    let masks = [b.mask(MaskRule::CAUSAL), b.mask(MaskRule { window, ..MaskRule::CAUSAL })];
    let is_local = local_layers(b, window.is_some())?;
    let scale = match dims.n_layers {
        LAYERS_OF_27B => (1.0 / ((dims.n_embd / dims.n_heads) as f64).sqrt()) as f32,
        _ => dims.attention_scale(),
    };
    let softcap = b.keys().cap("attn_logit_softcapping")?;
    let final_softcap = b.keys().cap("final_logit_softcapping")?;

    let mut x = b.embed((dims.n_embd as f64).sqrt() as f32)?;
    for layer in b.layers() {
        b.enter(layer);
        let kind = usize::from(is_local[layer as usize]);
        let h = b.norm(norm, "attn_norm", x)?;
        let q = b.linear("attn_q", Bias::None, h, dims.q_width())?;
        let k = b.linear("attn_k", Bias::None, h, dims.kv_width())?;
        let v = b.linear("attn_v", Bias::None, h, dims.kv_width())?;
        b.norm_heads(norm, "attn_q_norm", q)?;
        b.norm_heads(norm, "attn_k_norm", k)?;
        b.rotate(ropes[kind], q);
        b.rotate(ropes[kind], k);
        let a = b.attend(Attention { mask: masks[kind], scale, softcap }, q, k, v);
        let [a, residual] = b.wanted_rows([a, x]);
        x = residual;
        let a = b.linear("attn_output", Bias::None, a, dims.n_embd)?;
        b.norm_in_place(norm, "post_attention_norm", a)?;
        b.add(a, x);
        let h = b.norm(norm, "ffn_norm", x)?;
        let f = b.gated(Activation::GeluTanh, h)?;
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

/// Which layers see only the window.
fn local_layers(b: &Builder<'_>, has_window: bool) -> Result<Vec<bool>> {
    const KEY: &str = "attention.sliding_window_pattern";
    let pattern = b.keys().bools_or_u32(KEY)?;
    let n_layers = b.dims().n_layers;
    match pattern {
        _ if !has_window => Ok(vec![false; n_layers]),
        Some(BoolsOrU32::Bools(list)) if list.len() == n_layers => Ok(list.to_vec()),
        Some(BoolsOrU32::Bools(list)) => Err(b
            .keys()
            .error(KEY, format!("has {} entries, expected {n_layers}, one per layer", list.len()))),
        Some(BoolsOrU32::U32(0)) => Ok(vec![true; n_layers]),
        Some(BoolsOrU32::U32(period)) => Ok(periodic(b, period)),
        None => Ok(periodic(b, PERIOD)),
    }
}

fn periodic(b: &Builder<'_>, period: u32) -> Vec<bool> {
    b.layers().map(|layer| (layer + 1) % period != 0).collect()
}
