//! What one pass through the network reads.

use crate::ops::loss::IGNORED;

/// A packed sequence: several documents, or pieces of them, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// Tokens.
    pub tokens: Vec<u32>,
    /// The token each should predict, or [`IGNORED`].
    pub targets: Vec<u32>,
    /// Place of each in its document's piece.
    pub positions: Vec<u32>,
    /// Scope position of each.
    pub scopes: Vec<u32>,
    /// Whether it stays visible.
    pub pinned: Vec<bool>,
    /// Index of the first token of its document's piece.
    pub document: Vec<u32>,
}

impl Sequence {
    /// Adds a document, or a piece of one: every token predicts the next.
    pub fn push(&mut self, tokens: &[u32], scopes: &[u32], pinned: &[bool]) {
        let Some((_, inputs)) = tokens.split_last() else { return };
        let first = self.tokens.len() as u32;
        self.tokens.extend(inputs);
        self.targets.extend(&tokens[1..]);
        self.positions.extend(0..inputs.len() as u32);
        self.scopes.extend(&scopes[..inputs.len()]);
        self.pinned.extend(&pinned[..inputs.len()]);
        self.document.extend(std::iter::repeat_n(first, inputs.len()));
    }

    /// Fills up to `len` tokens with what predicts nothing and is seen by nobody.
    pub fn pad(&mut self, len: usize) {
        let first = self.tokens.len();
        self.tokens.resize(len, 0);
        self.targets.resize(len, IGNORED);
        self.positions.resize(len, 0);
        self.scopes.resize(len, 0);
        self.pinned.resize(len, false);
        self.document.extend(first as u32..len as u32);
    }
}

/// Sequences of the same length that pass through the network together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Every sequence.
    pub sequences: Vec<Sequence>,
}

impl Batch {
    /// One list of all sequences.
    pub(super) fn all<T: Copy>(&self, list: impl Fn(&Sequence) -> &[T]) -> Vec<T> {
        self.sequences.iter().flat_map(|sequence| list(sequence).iter().copied()).collect()
    }

    /// Tokens whose prediction counts.
    pub fn targets(&self) -> usize {
        self.sequences
            .iter()
            .flat_map(|sequence| &sequence.targets)
            .filter(|&&target| target != IGNORED)
            .count()
    }
}
