//! Byte-pair encoding, learned from counted words: of all adjacent pairs, the most frequent becomes one symbol, until
//! there are enough (Sennrich et al. 2016, arXiv 1508.07909). Of equal counts, the pair with the lowest ids goes first, so
//! the result depends on nothing but the counts.
//!
//! A word may have parts. Pairs inside a part join as usual; pairs across an edge join only where both sides are whole
//! parts or joined from whole parts. All classes compete in one queue, so each gets the share that saves most tokens.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// A word of the training text.
#[derive(Clone, Debug)]
pub(super) struct Word {
    /// Words of different classes have nothing in common.
    pub(super) class: u8,
    pub(super) count: u64,
    symbols: Vec<Symbol>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Symbol {
    id: u32,
    /// Whether a part begins with it, and whether one ends with it.
    begins: bool,
    ends: bool,
}

impl Word {
    /// One part.
    pub(super) fn part(class: u8, count: u64, ids: &[u32]) -> Word {
        let mut symbols: Vec<Symbol> =
            ids.iter().map(|&id| Symbol { id, begins: false, ends: false }).collect();
        if let [first, ..] = &mut symbols[..] {
            first.begins = true;
        }
        if let [.., last] = &mut symbols[..] {
            last.ends = true;
        }
        Word { class, count, symbols }
    }

    /// Of symbols that are whole parts or belong to none.
    pub(super) fn of_parts(class: u8, count: u64, ids: impl Iterator<Item = (u32, bool)>) -> Word {
        let symbols = ids.map(|(id, whole)| Symbol { id, begins: whole, ends: true }).collect();
        Word { class, count, symbols }
    }
}

/// A pair that became one symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Pair {
    pub(super) class: u8,
    pub(super) left: u32,
    pub(super) right: u32,
    /// Whether it joins whole parts.
    pub(super) parts: bool,
}

impl Pair {
    fn of(class: u8, left: Symbol, right: Symbol) -> Option<Pair> {
        let parts = left.ends;
        let whole = left.begins && left.ends && right.begins && right.ends;
        (!parts || whole).then_some(Pair { class, left: left.id, right: right.id, parts })
    }
}

#[derive(Default)]
struct Found {
    count: u64,
    /// Words that had it; some may have it no more.
    words: Vec<u32>,
}

/// Learns `n` joins; the symbol of join `i` is `first + i`. `len` tells how long the base symbols are, and no symbol may
/// become longer than `longest`. `progress` hears how many joins there are. Fewer come back where pairs run out.
pub(super) fn learn(
    words: &mut [Word],
    first: u32,
    n: usize,
    longest: usize,
    len: impl Fn(u32) -> usize,
    mut progress: impl FnMut(usize),
) -> Vec<Pair> {
    let mut pairs: HashMap<Pair, Found> = HashMap::new();
    for (i, word) in (0..).zip(words.iter()) {
        for two in word.symbols.windows(2) {
            if let Some(pair) = Pair::of(word.class, two[0], two[1]) {
                let found = pairs.entry(pair).or_default();
                found.count += word.count;
                if found.words.last() != Some(&i) {
                    found.words.push(i);
                }
            }
        }
    }
    let mut queue: BinaryHeap<(u64, Reverse<Pair>)> =
        pairs.iter().map(|(&pair, found)| (found.count, Reverse(pair))).collect();
    let mut joins: Vec<Pair> = Vec::with_capacity(n);
    let mut lens: Vec<usize> = Vec::with_capacity(n);
    while joins.len() < n {
        let Some((count, Reverse(pair))) = queue.pop() else { break };
        let Some(found) = pairs.get_mut(&pair) else { continue };
        if found.count != count {
            if found.count > 0 {
                queue.push((found.count, Reverse(pair)));
            }
            continue;
        }
        let len_of = |id: u32| if id < first { len(id) } else { lens[(id - first) as usize] };
        let joined = len_of(pair.left) + len_of(pair.right);
        if joined > longest || count < 2 {
            pairs.remove(&pair);
            continue;
        }
        let found = pairs.remove(&pair).unwrap_or_default();
        let id = first + joins.len() as u32;
        joins.push(pair);
        lens.push(joined);
        let mut fresh: Vec<Pair> = Vec::new();
        for i in found.words {
            let word = &mut words[i as usize];
            join(word, i, pair, id, &mut pairs, &mut fresh);
        }
        fresh.sort_unstable();
        fresh.dedup();
        for pair in fresh {
            if let Some(found) = pairs.get(&pair) {
                queue.push((found.count, Reverse(pair)));
            }
        }
        if joins.len().is_multiple_of(64) {
            progress(joins.len());
        }
    }
    progress(joins.len());
    joins
}

/// Joins every occurrence of `pair` in a word and counts its pairs anew.
fn join(
    word: &mut Word,
    index: u32,
    pair: Pair,
    id: u32,
    pairs: &mut HashMap<Pair, Found>,
    fresh: &mut Vec<Pair>,
) {
    let is_pair = |two: &[Symbol]| Pair::of(pair.class, two[0], two[1]) == Some(pair);
    if !word.symbols.windows(2).any(is_pair) {
        return;
    }
    let old = std::mem::take(&mut word.symbols);
    for two in old.windows(2) {
        if let Some(found) = Pair::of(word.class, two[0], two[1]).and_then(|pair| pairs.get_mut(&pair)) {
            found.count -= word.count;
        }
    }
    let mut at = 0;
    while at < old.len() {
        if old.len() - at >= 2 && is_pair(&old[at..at + 2]) {
            word.symbols.push(Symbol { id, begins: old[at].begins, ends: old[at + 1].ends });
            at += 2;
        } else {
            word.symbols.push(old[at]);
            at += 1;
        }
    }
    for two in word.symbols.windows(2) {
        let Some(pair) = Pair::of(word.class, two[0], two[1]) else { continue };
        let found = pairs.entry(pair).or_default();
        found.count += word.count;
        if found.words.last() != Some(&index) {
            found.words.push(index);
        }
        fresh.push(pair);
    }
}
