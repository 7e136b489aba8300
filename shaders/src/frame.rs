//! The frame: what a step tells the device, as one buffer of u32, written only where it changed.
//!
//! ```text
//! tokens   [batch]            id (NONE: what the device chose last), cell, index of the page list, pages in it, position on every axis
//! wanted   [logits]           token indices
//! cells    [cells]            (position + 1) * 2 + pinned, 0 where empty
//! lists    [batch, pages]     the pages of each sequence that has a token in the batch
//! tables                      rotary pairs: frequency in turns as a 64-bit fraction (high, low), axis
//! ```

use cchaha_plan::{Batch, Limits, PAGE_CELLS, Plan, RopeTable};

use crate::args::NONE;

/// Words of a token record before its positions.
const RECORD_HEAD: usize = 4;

/// Changed words with at most this many unchanged ones between them are one write.
const GAP: usize = 8;

/// Where the parts begin, in words.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) record: usize,
    pub(crate) wanted: usize,
    pub(crate) cells: usize,
    pub(crate) lists: usize,
    pub(crate) pages: usize,
    pub(crate) tables: Vec<usize>,
    /// Words in all.
    pub(crate) len: usize,
}

impl Parts {
    pub(crate) fn new(plan: &Plan, limits: &Limits) -> Parts {
        let record = RECORD_HEAD + plan.axes;
        let n_cells = limits.cells.next_multiple_of(PAGE_CELLS);
        let pages = n_cells / PAGE_CELLS;
        let wanted = limits.batch.saturating_mul(record);
        let cells = wanted.saturating_add(limits.logits);
        let lists = cells.saturating_add(n_cells);
        let mut len = lists.saturating_add(limits.batch.saturating_mul(pages));
        let mut tables = Vec::new();
        for rope in &plan.ropes {
            tables.push(len);
            len = len.saturating_add(3 * rope.pairs.len());
        }
        Parts { record, wanted, cells, lists, pages, tables, len }
    }
}

/// The host's copy.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) parts: Parts,
    words: Vec<u32>,
    /// Which sequence of the batch holds each list.
    slots: Vec<u32>,
}

impl Frame {
    pub(crate) fn new(plan: &Plan, limits: &Limits) -> Frame {
        let parts = Parts::new(plan, limits);
        let mut words = vec![0; parts.len];
        for (rope, &at) in plan.ropes.iter().zip(&parts.tables) {
            fill_table(rope, &mut words[at..]);
        }
        Frame { parts, words, slots: Vec::with_capacity(limits.batch) }
    }

    pub(crate) fn words(&self) -> &[u32] {
        &self.words
    }

    /// Takes a batch over and calls `write(first word, words)` for what changed. Gives back the most pages any token sees. Where
    /// `fed`, the tokens are what the device chose last.
    pub(crate) fn update(
        &mut self,
        batch: &Batch<'_>,
        axes: usize,
        fed: bool,
        mut write: impl FnMut(usize, &[u32]),
    ) -> usize {
        let Parts { record, wanted, cells, lists, pages, .. } = self.parts;
        self.slots.clear();
        let mut most = 0;
        let (head, rest) = self.words.split_at_mut(wanted);
        let mut changes = Changes::default();
        for t in 0..batch.tokens.len() {
            let sequence = batch.sequence[t];
            let slot = self.slots.iter().position(|&known| known == sequence).unwrap_or_else(|| {
                self.slots.push(sequence);
                self.slots.len() - 1
            });
            let n = batch.sequences[sequence as usize].len();
            most = most.max(n);
            let words = &mut head[t * record..][..record];
            let token = if fed { NONE } else { batch.tokens[t] };
            let new = [token, batch.cell[t], (lists + slot * pages) as u32, n as u32];
            let positions = batch.positions[t * axes..][..axes].iter().map(|&p| p as u32);
            for (i, value) in new.into_iter().chain(positions).enumerate() {
                changes.set(&mut words[i], value, t * record + i);
            }
        }
        changes.flush(head, 0, &mut write);
        let (wanted_words, rest) = rest.split_at_mut(cells - wanted);
        for (i, &row) in batch.logits.iter().enumerate() {
            changes.set(&mut wanted_words[i], row, i);
        }
        changes.flush(wanted_words, wanted, &mut write);
        let (cell_words, list_words) = rest.split_at_mut(lists - cells);
        let states = batch.cells.pos.iter().zip(&batch.cells.pinned);
        for (i, (&position, &pinned)) in states.enumerate() {
            let value = if position < 0 { 0 } else { (position as u32 + 1) << 1 | u32::from(pinned) };
            changes.set(&mut cell_words[i], value, i);
        }
        changes.flush(cell_words, cells, &mut write);
        for (slot, &sequence) in self.slots.iter().enumerate() {
            for (i, &page) in batch.sequences[sequence as usize].iter().enumerate().take(pages) {
                changes.set(&mut list_words[slot * pages + i], page, slot * pages + i);
            }
        }
        changes.flush(list_words, lists, &mut write);
        most.min(pages)
    }
}

/// Ranges of changed words of one part.
#[derive(Default)]
struct Changes {
    ranges: Vec<(usize, usize)>,
}

impl Changes {
    fn set(&mut self, word: &mut u32, value: u32, at: usize) {
        if *word == value {
            return;
        }
        *word = value;
        match self.ranges.last_mut() {
            Some((_, end)) if at <= *end + GAP => *end = at + 1,
            _ => self.ranges.push((at, at + 1)),
        }
    }

    fn flush(&mut self, words: &[u32], base: usize, write: &mut impl FnMut(usize, &[u32])) {
        for (start, end) in self.ranges.drain(..) {
            write(base + start, &words[start..end]);
        }
    }
}

/// `[high, low, axis]` of every pair: `frequency / 2 pi` modulo one turn, as a fraction of 64 bits.
fn fill_table(rope: &RopeTable, words: &mut [u32]) {
    for (pair, words) in rope.pairs.iter().zip(words.chunks_exact_mut(3)) {
        let turns = (pair.frequency / std::f64::consts::TAU).rem_euclid(1.0);
        let high = (turns * 4_294_967_296.0).floor();
        let low = ((turns * 4_294_967_296.0 - high) * 4_294_967_296.0).floor();
        words.copy_from_slice(&[high as u32, low as u32, u32::from(pair.axis)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cchaha_plan::Cells;

    fn plan() -> Plan {
        Plan { axes: 2, ..Plan::new("test", 100, 64) }
    }

    #[test]
    fn a_token_more_writes_its_record_its_cell_and_its_page() {
        let plan = plan();
        let mut frame = Frame::new(&plan, &Limits { cells: 64, batch: 4, logits: 1 });
        let mut device = frame.words().to_vec();
        let mut cells = Cells::new(64);
        let pages: Vec<u32> = vec![2, 0];
        for pos in 0..20i32 {
            let page = pages[pos as usize / PAGE_CELLS];
            let cell = page * PAGE_CELLS as u32 + pos as u32 % PAGE_CELLS as u32;
            cells.pos[cell as usize] = pos;
            let held = &pages[..pos as usize / PAGE_CELLS + 1];
            let batch = Batch {
                tokens: &[7],
                positions: &[pos, 3],
                sequence: &[0],
                cell: &[cell],
                logits: &[0],
                coarse: &[],
                sequences: &[held],
                cells: &cells,
            };
            let mut bytes = 0;
            frame.update(&batch, 2, false, |at, words| {
                device[at..at + words.len()].copy_from_slice(words);
                bytes += 4 * words.len();
            });
            assert!(bytes <= 40, "{bytes} bytes at position {pos}");
            assert_eq!(device, frame.words());
        }
        assert_eq!(frame.words()[..6], [7, 3, frame.parts.lists as u32, 2, 19, 3]);
    }
}
