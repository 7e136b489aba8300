//! The sizes of a decoder, from its metadata.

use crate::error::Result;
use crate::models::Keys;

/// No model comes near it; it bounds what a hostile file can make us allocate before its tensors are looked at.
const MAX_HEAD_DIM: usize = 1 << 16;

/// The sizes every decoder has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dims {
    /// Layers.
    pub(crate) n_layers: usize,
    /// Values of the residual stream.
    pub(crate) n_embd: usize,
    /// Query heads.
    pub(crate) n_heads: usize,
    /// Key/value heads.
    pub(crate) n_kv_heads: usize,
    /// Values of a head.
    pub(crate) head_dim: usize,
    /// Values of a head that turn.
    pub(crate) rotary_dim: usize,
    /// Hidden values of the feed-forward block.
    pub(crate) n_ff: usize,
    /// Tokens of context the model was trained for.
    pub(crate) context: usize,
}

impl Dims {
    pub(super) fn read(keys: &Keys<'_>) -> Result<Dims> {
        let n_embd = keys.count("embedding_length")?;
        let n_heads = keys.count("attention.head_count")?;
        let n_kv_heads = keys.count_or("attention.head_count_kv", n_heads)?;
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(keys.error(
                "attention.head_count",
                format!("is {n_heads}, which {n_kv_heads} KV heads (attention.head_count_kv) do not divide"),
            ));
        }
        let head_dim = keys.count_or("attention.key_length", (n_embd / n_heads).max(1))?;
        let value_dim = keys.count_or("attention.value_length", head_dim)?;
        if value_dim != head_dim {
            return Err(keys.error(
                "attention.value_length",
                format!("is {value_dim}, supported is only the {head_dim} of attention.key_length"),
            ));
        }
        if head_dim > MAX_HEAD_DIM {
            return Err(
                keys.error("attention.key_length", format!("is {head_dim}, expected {MAX_HEAD_DIM} at most"))
            );
        }
        let rotary_dim = keys.count_or("rope.dimension_count", head_dim)?;
        if rotary_dim > head_dim || !rotary_dim.is_multiple_of(2) {
            return Err(keys.error(
                "rope.dimension_count",
                format!("is {rotary_dim}, expected an even number up to the {head_dim} values of a head"),
            ));
        }
        let n_layers = keys.count("block_count")?;
        let (n_ff, context) = (keys.count("feed_forward_length")?, keys.count("context_length")?);
        Ok(Dims { n_layers, n_embd, n_heads, n_kv_heads, head_dim, rotary_dim, n_ff, context })
    }

    /// Values of all query heads.
    pub(crate) fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Values of all key (or value) heads.
    pub(crate) fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// The usual factor on scores, `1 / sqrt(head_dim)`.
    pub(crate) fn attention_scale(&self) -> f32 {
        (1.0 / (self.head_dim as f64).sqrt()) as f32
    }
}
