//! Byte-level BPE: a word starts as its bytes and merges by rank (Radford et al. 2019).

use std::hash::BuildHasher;

use super::merge::{Merge, Symbol};
use super::pre::Rule;
use super::vocab::{NO_TOKEN, PieceMap, Pieces, TokenKind, Vocab};
use super::{Scratch, TokenizerError};

/// The tables of a byte-level BPE vocabulary.
pub(super) struct Bpe {
    rule: &'static Rule,
    byte_ids: [u32; 256],
    merges: Merges,
    /// Words that are tokens, where the rule has them go before merges.
    words: Option<PieceMap>,
    /// What stands for a byte that has no token, as published vocabularies lack bytes that are rare or in no text:
    /// U+FFFD.
    unknown: Vec<u32>,
}

impl Bpe {
    pub(super) fn new(vocab: &Vocab, rule: &'static Rule, merges: &Pieces) -> Result<Bpe, TokenizerError> {
        let byte_ids = vocab.byte_ids();
        // Not the unknown token: files for vocabularies that have none tend to name the end of the text.
        let replacement = "\u{FFFD}".bytes().map(|byte| byte_ids[usize::from(byte)]);
        let unknown = replacement.filter(|&id| id != NO_TOKEN).collect();
        let words =
            rule.ignore_merges.then(|| PieceMap::new(&vocab.bytes, |id| vocab.kind(id) == TokenKind::Normal));
        Ok(Bpe { rule, byte_ids, merges: Merges::new(vocab, merges)?, words, unknown })
    }

    /// Appends the ids of `text`.
    pub(super) fn encode(&self, vocab: &Vocab, text: &[u8], scratch: &mut Scratch, out: &mut Vec<u32>) {
        self.rule.split(text, &mut |word| {
            if let [byte] = *word {
                return self.push(self.byte_ids[usize::from(byte)], out);
            }
            // Places in a word are u32; a longer one is cut, and no token is that long.
            for word in word.chunks(1 << 30) {
                scratch.through_cache(0, word, out, |merger, out| {
                    if let Some(id) = self.words.as_ref().and_then(|words| words.get(&vocab.bytes, word)) {
                        return out.push(id);
                    }
                    merger.symbols.clear();
                    merger.symbols.extend((0..).zip(word).map(|(start, &byte)| Symbol {
                        start,
                        len: 1,
                        id: self.byte_ids[usize::from(byte)],
                    }));
                    merger.merge(|left, right| self.merges.get(left.id, right.id));
                    merger.symbols.iter().for_each(|symbol| self.push(symbol.id, out));
                });
            }
        });
    }

    fn push(&self, id: u32, out: &mut Vec<u32>) {
        if id == NO_TOKEN { out.extend_from_slice(&self.unknown) } else { out.push(id) }
    }
}

/// What pairs of tokens become, by their ids.
pub(super) struct Merges {
    /// At the pair's hash's place or after it; a power of two long, at most three quarters full.
    slots: Vec<Slot>,
    seed: u64,
}

#[derive(Clone, Copy)]
struct Slot {
    /// The left id above the right one.
    pair: u64,
    merge: Merge,
}

/// No pair: there is no token [`NO_TOKEN`].
const EMPTY: Slot = Slot { pair: u64::MAX, merge: Merge::NEVER };

impl Merges {
    fn new(vocab: &Vocab, list: &Pieces) -> Result<Merges, TokenizerError> {
        let mut merges = Merges::with_capacity(list.len());
        let mut joined = Vec::new();
        for (rank, text) in (0..).zip(list.iter()) {
            let invalid = |problem| TokenizerError::Merge {
                rank,
                text: String::from_utf8_lossy(text).into_owned(),
                problem,
            };
            // The first byte may itself be a space.
            let cut = text.iter().skip(1).position(|&byte| byte == b' ').map(|at| at + 1);
            let (left, right) = cut
                .map(|cut| (&text[..cut], &text[cut + 1..]))
                .ok_or_else(|| invalid("has no space between its two parts"))?;
            joined.clear();
            joined.extend_from_slice(left);
            joined.extend_from_slice(right);
            let id = |piece: &[u8], problem| vocab.id_of(piece).ok_or_else(|| invalid(problem));
            let left = id(left, "begins with what is no token")?;
            let right = id(right, "ends with what is no token")?;
            let id = id(&joined, "makes what is no token")?;

            merges.insert(left, right, Merge { rank, id });
        }
        Ok(merges)
    }

    /// An empty table with room for `n` pairs.
    pub(super) fn with_capacity(n: usize) -> Merges {
        let len = (n / 3 * 4 + 4).next_power_of_two();
        // A seed of its own per table, so that no file can be made to collide.
        let seed = std::hash::RandomState::new().hash_one(0);
        Merges { slots: vec![EMPTY; len], seed }
    }

    /// Of equal pairs, the first stays: it has the lowest rank.
    pub(super) fn insert(&mut self, left: u32, right: u32, merge: Merge) {
        let pair = u64::from(left) << 32 | u64::from(right);
        let slot = self.slot(pair);
        if self.slots[slot].pair == EMPTY.pair {
            self.slots[slot] = Slot { pair, merge };
        }
    }

    #[inline]
    pub(super) fn get(&self, left: u32, right: u32) -> Merge {
        self.slots[self.slot(u64::from(left) << 32 | u64::from(right))].merge
    }

    #[inline]
    fn slot(&self, pair: u64) -> usize {
        let mask = self.slots.len() - 1;
        let product = u128::from(pair ^ self.seed) * 0x9E37_79B9_7F4A_7C15;
        let mut slot = ((product >> 64) as u64 ^ product as u64) as usize & mask;
        while self.slots[slot].pair != pair && self.slots[slot].pair != EMPTY.pair {
            slot = (slot + 1) & mask;
        }
        slot
    }
}
