//! Rotary positions as data (RoFormer, arXiv 2104.09864): every rotary pair names its axis and frequency.

/// How the two values of a rotary pair lie in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayout {
    /// Pair `i` is values `2i` and `2i + 1` (GGUF files of llama).
    Interleaved,
    /// Pair `i` is values `i` and `i + rotary_dim / 2` (GPT-NeoX style: qwen, gemma, starcoder2).
    Halves,
}

/// One rotary pair: it turns by `position[axis] * frequency` radians.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopePair {
    /// Which of a token's positions turns this pair.
    pub axis: u8,
    /// Radians per position; scaling rules and per-axis factors are folded in.
    pub frequency: f64,
}

/// The rotary table of one or more layers. Values beyond `2 * pairs.len()` of a head pass unchanged.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTable {
    /// Rotary pairs, in order.
    pub pairs: Vec<RopePair>,
    /// Where the values of a pair lie.
    pub layout: RopeLayout,
    /// Rotated values are multiplied by this (YaRN's attention factor, arXiv 2309.00071); 1 without YaRN.
    pub magnitude: f64,
}

impl RopeTable {
    /// Values of a head that turn.
    pub fn rotary_dim(&self) -> usize {
        self.pairs.len() * 2
    }

    /// Indices in the head of the two values of pair `i`.
    #[inline]
    pub fn pair_indices(&self, i: usize) -> (usize, usize) {
        match self.layout {
            RopeLayout::Interleaved => (2 * i, 2 * i + 1),
            RopeLayout::Halves => (i, i + self.pairs.len()),
        }
    }
}
