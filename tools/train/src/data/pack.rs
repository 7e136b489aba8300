//! Pieces of documents in random order, packed into sequences without gaps.

use serde::{Deserialize, Serialize};

use super::Store;
use crate::model::Sequence;
use crate::ops::loss::IGNORED;
use crate::rng::Rng;

/// Where in the data training is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Times all pieces have been gone through.
    pub epoch: u64,
    /// Place in this epoch's order.
    pub place: usize,
    /// Tokens of the part there that are done.
    pub done: usize,
}

/// Packs sequences. What comes next depends on the seed and the position only.
#[derive(Debug)]
pub struct Packer<'a> {
    store: &'a Store,
    seed: u64,
    len: usize,
    /// Parts of pieces, at most as long as a sequence: (piece, first token).
    parts: Vec<(u32, u32)>,
    /// The order of which epoch.
    ordered: Option<u64>,
    /// Where the next sequence begins.
    pub position: Position,
}

impl<'a> Packer<'a> {
    /// Sequences of `len` tokens. Gives `None` where there is nothing to predict.
    pub fn new(store: &'a Store, seed: u64, len: usize, position: Position) -> Option<Packer<'a>> {
        let mut packer = Packer { store, seed, len, parts: Vec::new(), ordered: None, position };
        packer.parts = packer.cut();
        (!packer.parts.is_empty()).then_some(packer)
    }

    /// All parts, in the order of the store.
    fn cut(&self) -> Vec<(u32, u32)> {
        let pieces = 0..self.store.len();
        let parts = pieces.flat_map(|i| {
            let n = self.store.piece(i).tokens().len();
            (0..n.saturating_sub(1)).step_by(self.len).map(move |first| (i as u32, first as u32))
        });
        parts.collect()
    }

    fn order(&mut self) {
        if self.ordered != Some(self.position.epoch) {
            self.parts = self.cut();
            Rng::new(self.seed, 1000 + self.position.epoch).shuffle(&mut self.parts);
            self.ordered = Some(self.position.epoch);
        }
    }

    /// The next sequence.
    pub fn next_sequence(&mut self) -> Sequence {
        let mut sequence = Sequence::default();
        while sequence.tokens.len() < self.len {
            self.order();
            let Some(&(piece, first)) = self.parts.get(self.position.place) else {
                self.position = Position { epoch: self.position.epoch + 1, ..Position::default() };
                continue;
            };
            let piece = self.store.piece(piece as usize);
            let end = piece.tokens().len().min(first as usize + self.len + 1);
            let start = first as usize + self.position.done;
            // Inputs; the token after the last is only predicted.
            let n = (end - 1 - start).min(self.len - sequence.tokens.len());
            push(&mut sequence, piece, start, n);
            self.position.done += n;
            // The rest of what makes no sense in parts is left out.
            if start + n + 1 >= end || piece.whole {
                self.position = Position { place: self.position.place + 1, done: 0, ..self.position };
            }
        }
        sequence
    }
}

/// Adds `n` inputs from token `start` on.
fn push(sequence: &mut Sequence, piece: super::Piece<'_>, start: usize, n: usize) {
    let scopes: Vec<u32> = piece.scopes().skip(start).take(n + 1).collect();
    let pinned: Vec<bool> = piece.pinned().skip(start).take(n + 1).collect();
    let first = sequence.targets.len();
    sequence.push(&piece.tokens()[start..=start + n], &scopes, &pinned);
    let learned = piece.learned().skip(start + 1).take(n);
    for (target, learned) in sequence.targets[first..].iter_mut().zip(learned) {
        if !learned {
            *target = IGNORED;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Tokens;

    fn store() -> Store {
        let mut store = Store::default();
        for (piece, n) in [5usize, 1, 23, 2, 40].into_iter().enumerate() {
            let tokens: Vec<u32> = (0..n).map(|i| (piece * 100 + i) as u32).collect();
            store.push(&Tokens {
                scopes: tokens.iter().map(|token| token / 3).collect(),
                pinned: tokens.iter().map(|token| token % 5 == 0).collect(),
                learned: tokens.iter().map(|token| token % 11 != 0).collect(),
                bytes: n,
                whole: false,
                tokens,
            });
        }
        store
    }

    #[test]
    fn every_token_is_predicted_once_per_epoch_from_the_one_before_it() {
        let store = store();
        let mut packer = Packer::new(&store, 1, 6, Position::default()).unwrap();
        let mut seen = Vec::new();
        let mut given = 0;
        while packer.position.epoch == 0 {
            let sequence = packer.next_sequence();
            assert_eq!(sequence.tokens.len(), 6);
            for i in 0..6 {
                let (token, target) = (sequence.tokens[i], sequence.targets[i]);
                assert_eq!(sequence.scopes[i], token / 3);
                assert_eq!(sequence.pinned[i], token % 5 == 0);
                let first = sequence.document[i] as usize;
                assert_eq!(sequence.positions[i] as usize, i - first);
                assert_eq!(sequence.tokens[first] + (i - first) as u32, token);
                if target == IGNORED {
                    assert_eq!((token + 1) % 11, 0);
                    given += 1;
                } else {
                    assert_eq!(target, token + 1);
                    seen.push(target);
                }
            }
        }
        // All but the first of each piece; the last sequence may reach into the next epoch.
        let predicted = 4 + 22 + 1 + 39;
        assert!((predicted..=predicted + 6).contains(&(seen.len() + given)), "{} {given}", seen.len());
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() + given >= predicted - given, "nothing is left out");
    }

    #[test]
    fn packing_goes_on_from_any_position() {
        let store = store();
        let mut packer = Packer::new(&store, 9, 7, Position::default()).unwrap();
        for _ in 0..30 {
            let position = packer.position;
            let sequence = packer.next_sequence();
            let mut again = Packer::new(&store, 9, 7, position).unwrap();
            assert_eq!(again.next_sequence(), sequence);
            assert_eq!(again.position, packer.position);
        }
        assert!(packer.position.epoch >= 2);
        assert!(Packer::new(&Store::default(), 9, 7, Position::default()).is_none());
    }
}
