//! Where the tensors of a model lie in one long list of numbers: weights, gradients and optimizer states share it.

use std::ops::Range;

use super::Config;

/// What a tensor is, which decides how it is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Token embeddings, which are the output matrix too.
    Embedding,
    /// A matrix inside a layer.
    Matrix,
    /// Weights of a norm.
    Norm,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name in GGUF.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Outputs of a matrix; 1 for a vector.
    pub rows: usize,
    /// Inputs of a matrix.
    pub cols: usize,
    /// Where it lies.
    pub range: Range<usize>,
}

/// Ranges of one layer's tensors.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) attn_norm: Range<usize>,
    pub(super) q: Range<usize>,
    pub(super) k: Range<usize>,
    pub(super) v: Range<usize>,
    pub(super) q_norm: Range<usize>,
    pub(super) k_norm: Range<usize>,
    pub(super) output: Range<usize>,
    pub(super) ffn_norm: Range<usize>,
    pub(super) gate: Range<usize>,
    pub(super) up: Range<usize>,
    pub(super) down: Range<usize>,
}

/// All tensors, in the order they lie in.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Every tensor.
    pub tensors: Vec<Tensor>,
    pub(super) embedding: Range<usize>,
    pub(super) layers: Vec<Layer>,
    pub(super) output_norm: Range<usize>,
}

impl Layout {
    /// The tensors of this model.
    pub fn new(config: &Config) -> Layout {
        let mut tensors: Vec<Tensor> = Vec::new();
        let mut add = |name: String, kind, rows: usize, cols: usize| {
            let start = tensors.last().map_or(0, |tensor| tensor.range.end);
            let range = start..start + rows * cols;
            tensors.push(Tensor { name, kind, rows, cols, range: range.clone() });
            range
        };
        let width = config.width;
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let embedding = add("token_embd.weight".into(), Kind::Embedding, config.vocab, width);
        let layers = (0..config.layers).map(|layer| {
            let mut add =
                |name, kind, rows, cols| add(format!("blk.{layer}.{name}.weight"), kind, rows, cols);
            Layer {
                attn_norm: add("attn_norm", Kind::Norm, 1, width),
                q: add("attn_q", Kind::Matrix, q, width),
                k: add("attn_k", Kind::Matrix, kv, width),
                v: add("attn_v", Kind::Matrix, kv, width),
                q_norm: add("attn_q_norm", Kind::Norm, 1, config.head_dim),
                k_norm: add("attn_k_norm", Kind::Norm, 1, config.head_dim),
                output: add("attn_output", Kind::Matrix, width, q),
                ffn_norm: add("ffn_norm", Kind::Norm, 1, width),
                gate: add("ffn_gate", Kind::Matrix, config.hidden, width),
                up: add("ffn_up", Kind::Matrix, config.hidden, width),
                down: add("ffn_down", Kind::Matrix, width, config.hidden),
            }
        });
        let layers = layers.collect();
        let output_norm = add("output_norm.weight".into(), Kind::Norm, 1, width);
        Layout { tensors, embedding, layers, output_norm }
    }

    /// Numbers in all.
    pub fn len(&self) -> usize {
        self.output_norm.end
    }

    /// Whether there are none; a model has some.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
