//! Qwen3's mixtures of experts (arXiv 2505.09388), such as Qwen3-Coder-30B-A3B: Qwen3 with experts in every layer.

use cchaha_plan::{Activation, Routing};

use super::builder::{Bias, Builder};
use super::qwen3;
use crate::error::Result;

pub(super) fn build(b: &mut Builder<'_>) -> Result<()> {
    let norm = b.rms_norm()?;
    let attention = qwen3::attention(b)?;
    let routing = Routing::SoftmaxThenTopKRenormalized;

    let mut x = b.embed(1.0)?;
    for layer in b.layers() {
        b.enter(layer);
        let a = b.attention(norm, attention, &mut x)?;
        b.linear_add("attn_output", Bias::None, a, x)?;
        let f = b.experts(norm, Activation::Silu, routing, x)?;
        b.add(f, x);
    }
    b.output(norm, x)?;
    Ok(())
}
