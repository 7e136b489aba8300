//! The merge loop of byte-pair encoding: of all adjacent pairs that may merge, the one of lowest rank does,
//! the leftmost of equals first, until none may (Sennrich et al. 2016). O(n log n).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A stretch of the word that has become one token (or, unmerged, is none).
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    pub(super) start: u32,
    /// In bytes; 0 for one that was merged into its left neighbour.
    pub(super) len: u32,
    pub(super) id: u32,
}

/// What two neighbours would become.
#[derive(Clone, Copy, Debug)]
pub(super) struct Merge {
    /// Lower goes first.
    pub(super) rank: u32,
    pub(super) id: u32,
}

impl Merge {
    /// They may not merge. No real merge has this rank.
    pub(super) const NEVER: Merge = Merge { rank: u32::MAX, id: u32::MAX };
}

/// Buffers of the loop, kept between words.
#[derive(Default)]
pub(super) struct Merger {
    /// The word: filled in by the caller, merged by [`Merger::merge`].
    pub(super) symbols: Vec<Symbol>,
    /// `pairs[i]`: symbol `i` and the one after it.
    pairs: Vec<Merge>,
    links: Vec<Link>,
    queue: Queue,
}

/// The living neighbours of a symbol in a long word.
#[derive(Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
}

/// No neighbour on that side.
const END: u32 = u32::MAX;

/// Up to so many symbols, looking through all pairs is faster than a queue (measured on C, Python and Rust).
const SHORT: usize = 48;

/// What is kept of the buffers' capacity, so that one long word does not hold memory for good.
const KEEP: usize = 1 << 16;

impl Merger {
    /// Merges the symbols as far as `rule` goes. At most `u32::MAX - 1` of them.
    #[inline]
    pub(super) fn merge(&mut self, rule: impl Fn(Symbol, Symbol) -> Merge) {
        self.pairs.clear();
        self.pairs.extend(self.symbols.windows(2).map(|pair| rule(pair[0], pair[1])));
        if self.symbols.len() <= SHORT { self.merge_short(rule) } else { self.merge_long(rule) }
    }

    /// Gives back what an unusually long word made the buffers grow to.
    pub(super) fn shrink(&mut self) {
        if self.symbols.capacity() > KEEP {
            *self = Merger::default();
        }
    }

    fn merge_short(&mut self, rule: impl Fn(Symbol, Symbol) -> Merge) {
        let Merger { symbols, pairs, .. } = self;
        while let Some((i, &best)) = pairs.iter().enumerate().min_by_key(|(_, pair)| pair.rank) {
            if best.rank == Merge::NEVER.rank {
                break;
            }
            symbols[i] = Symbol { len: symbols[i].len + symbols[i + 1].len, id: best.id, ..symbols[i] };
            symbols.remove(i + 1);
            pairs.remove(i);
            if i > 0 {
                pairs[i - 1] = rule(symbols[i - 1], symbols[i]);
            }
            if i < pairs.len() {
                pairs[i] = rule(symbols[i], symbols[i + 1]);
            }
        }
    }

    fn merge_long(&mut self, rule: impl Fn(Symbol, Symbol) -> Merge) {
        let Merger { symbols, pairs, links, queue } = self;
        let n = symbols.len() as u32;
        pairs.push(Merge::NEVER);
        links.clear();
        links.extend((0..n).map(|i| Link {
            previous: i.checked_sub(1).unwrap_or(END),
            next: if i + 1 < n { i + 1 } else { END },
        }));

        // An entry is a rank and a place, and goes stale when the pair in that place changes.
        let entry = |place: u32, pair: Merge| u64::from(pair.rank) << 32 | u64::from(place);
        let mergeable = (0..n).zip(pairs.iter()).filter(|(_, pair)| pair.rank != Merge::NEVER.rank);
        queue.fill(mergeable.map(|(i, &pair)| entry(i, pair)));

        while let Some(best) = queue.pop() {
            let (left, rank) = (best as u32, (best >> 32) as u32);
            let merge = pairs[left as usize];
            if merge.rank != rank {
                continue;
            }
            let right = links[left as usize].next;
            let Link { previous, .. } = links[left as usize];
            let Link { next, .. } = links[right as usize];

            symbols[left as usize].len += symbols[right as usize].len;
            symbols[left as usize].id = merge.id;
            symbols[right as usize].len = 0;
            pairs[right as usize] = Merge::NEVER;
            links[left as usize].next = next;
            if next != END {
                links[next as usize].previous = left;
            }

            for (left, right) in [(previous, left), (left, next)] {
                if left == END {
                    continue;
                }
                let pair = match right {
                    END => Merge::NEVER,
                    right => rule(symbols[left as usize], symbols[right as usize]),
                };
                pairs[left as usize] = pair;
                if pair.rank != Merge::NEVER.rank {
                    queue.push(entry(left, pair));
                }
            }
        }
        symbols.retain(|symbol| symbol.len > 0);
    }
}

/// A priority queue that gives the lowest entry first.
///
/// A long run of one character makes entries in waves, each in order and above the wave before. Sorting such a
/// wave and walking through it costs a tenth of what a heap of all entries does, which misses the caches.
#[derive(Default)]
struct Queue {
    /// The present wave, ascending, and how much of it is done.
    wave: Vec<u64>,
    done: usize,
    /// The wave's last entry.
    horizon: u64,
    /// What came below the horizon.
    near: BinaryHeap<Reverse<u64>>,
    /// What came at or above it: the next wave.
    later: Vec<u64>,
}

impl Queue {
    /// Starts anew with these.
    fn fill(&mut self, entries: impl Iterator<Item = u64>) {
        self.wave.clear();
        self.near.clear();
        self.later.clear();
        self.later.extend(entries);
        self.next_wave();
    }

    fn next_wave(&mut self) {
        std::mem::swap(&mut self.wave, &mut self.later);
        self.later.clear();
        // The stable sort is the one that takes linear time for sorted stretches.
        self.wave.sort();
        self.done = 0;
        self.horizon = self.wave.last().copied().unwrap_or(0);
    }

    #[inline]
    fn push(&mut self, entry: u64) {
        if entry < self.horizon { self.near.push(Reverse(entry)) } else { self.later.push(entry) }
    }

    #[inline]
    fn pop(&mut self) -> Option<u64> {
        if self.done == self.wave.len() && self.near.is_empty() {
            self.next_wave();
        }
        match (self.wave.get(self.done), self.near.peek()) {
            (Some(&entry), near) if near.is_none_or(|&Reverse(near)| entry <= near) => {
                self.done += 1;
                Some(entry)
            }
            _ => self.near.pop().map(|Reverse(entry)| entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both loops against the definition, on words over few letters so that many pairs merge.
    #[test]
    fn short_and_long_words_follow_the_definition() {
        // A made-up rule over 40 ids: most pairs merge, several into the same id, ranks repeat.
        let rule = |left: Symbol, right: Symbol| {
            let mix = (left.id * 41 + right.id).wrapping_mul(0x9E37_79B9) >> 16;
            if mix.is_multiple_of(3) { Merge::NEVER } else { Merge { rank: mix % 50, id: mix % 40 } }
        };
        let mut state = 1_u32;
        for len in (1..200).chain([1000]) {
            let symbols: Vec<Symbol> = (0..len)
                .map(|start| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    Symbol { start, len: 1, id: state >> 24 & 7 }
                })
                .collect();

            let mut expected = symbols.clone();
            loop {
                let pairs = (0..expected.len() - 1).map(|i| (rule(expected[i], expected[i + 1]), i));
                let Some((merge, i)) = pairs.min_by_key(|(merge, _)| merge.rank) else { break };
                if merge.rank == u32::MAX {
                    break;
                }
                let right = expected.remove(i + 1);
                expected[i] =
                    Symbol { start: expected[i].start, len: expected[i].len + right.len, id: merge.id };
            }

            let spans =
                |symbols: &[Symbol]| symbols.iter().map(|s| (s.start, s.len, s.id)).collect::<Vec<_>>();
            for long in [false, true] {
                let mut merger = Merger { symbols: symbols.clone(), ..Merger::default() };
                merger.pairs = symbols.windows(2).map(|pair| rule(pair[0], pair[1])).collect();
                if long {
                    merger.merge_long(rule)
                } else {
                    merger.merge_short(rule)
                }
                assert_eq!(spans(&merger.symbols), spans(&expected), "{len} symbols, long {long}");
            }
        }
    }
}
