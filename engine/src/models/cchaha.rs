//! Our own: Qwen3's layers, with code structure in them. Slow rotary pairs turn with the scope position
//! ([`crate::code`]), most layers see a sliding window in which import lines and headers stay visible for good, and
//! the others see everything.
//!
//! Keys beside the usual ones: `rope.scope_split`, the first rotary pair of the scope axis (all pairs turn with the
//! token position without it); `rope.sigma`, what a scope position is worth in token positions;
//! `attention.sliding_window_pattern`, one flag per layer; `attention.pins`, whether windowed layers see pins.

use cchaha_plan::{Activation, MaskRule, RopeLayout};

use super::builder::{Attention, Bias, Builder};
use crate::error::Result;

/// Every fourth layer is global unless the file has another pattern.
const PERIOD: u32 = 4;

pub(super) fn build(b: &mut Builder<'_>) -> Result<()> {
    let norm = b.rms_norm()?;
    let mut table = b.rotary(RopeLayout::Halves, 10000.0)?.scaled(b.keys(), None)?;
    let pairs = table.pairs.len();
    let split = b.keys().u32_above_0("rope.scope_split")?.map_or(pairs, |split| split as usize);
    if split > pairs {
        return Err(b
            .keys()
            .error("rope.scope_split", format!("is {split}, but a head has {pairs} rotary pairs")));
    }
    let sigma = b.keys().f64("rope.sigma")?.unwrap_or(1.0);
    for pair in &mut table.pairs[split..] {
        pair.axis = 1;
        pair.frequency *= sigma;
    }
    if split < pairs {
        b.scope_axis();
    }
    let window = b.keys().u32_above_0("attention.sliding_window")?;
    let pins = b.keys().bool("attention.pins")?.unwrap_or(false);
    let global = Attention {
        bias: Bias::None,
        head_norms: true,
        rope: b.rope(table),
        mask: b.mask(MaskRule::CAUSAL),
        scale: b.dims().attention_scale(),
        softcap: None,
    };
    let windowed = b.windowed_layers(PERIOD)?;
    let local = match window {
        None => global,
        Some(_) => Attention { mask: b.mask(MaskRule { window, sinks: 0, pins }), ..global },
    };

    let mut x = b.embed(1.0)?;
    for layer in b.layers() {
        b.enter(layer);
        let attention = if windowed[layer as usize] { local } else { global };
        let a = b.attention(norm, attention, &mut x)?;
        b.linear_add("attn_output", Bias::None, a, x)?;
        let f = b.gated(norm, Activation::Silu, x)?;
        b.linear_add("ffn_down", Bias::None, f, x)?;
    }
    b.output(norm, x)?;
    Ok(())
}
