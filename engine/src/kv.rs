//! Which KV cells belong to whom: sequences hold pages of [`PAGE_CELLS`] cells, and full pages can be shared.
//!
//! ```text
//! sequence a  [ page 0 | page 3 | page 4 ]        page 0 is shared: it is full, so nobody writes to it again
//! sequence b  [ page 0 | page 1 ]                 position p of a sequence is cell p % 16 of its page p / 16
//! sequence c  [ page 2 | (1) | (2) | page 5 ]     positions 0..48 are folded: what is left of their keys and values, differently
//! ```                                             in every layer, is packed into page 2; positions keep their numbers
//!
//! Only the table lives here; keys and values are the runner's. Nothing is ever copied: a page that two
//! sequences hold is full, and a sequence that is cut inside such a page gives the whole page up.

use cchaha_plan::{Cells, EMPTY, PAGE_CELLS};

use crate::error::{Error, ErrorKind, Result};

/// Names a sequence of a [`KvTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceId(u32);

#[derive(Clone, Debug, Default)]
struct Sequence {
    /// The pages there are, oldest first: those of what was folded, then one for every 16 positions.
    pages: Vec<u32>,
    /// How many of them hold what is left of folded positions, and how many times 16 positions were folded.
    packed: usize,
    folded: usize,
    len: usize,
}

/// Pages, cells and sequences of one runner.
#[derive(Clone, Debug)]
pub struct KvTable {
    cells: Cells,
    /// How many sequences hold each page.
    holders: Vec<u32>,
    /// Pages nobody holds, the next one last.
    free: Vec<u32>,
    sequences: Vec<Option<Sequence>>,
}

impl KvTable {
    /// A table of `n` empty cells, rounded up to whole pages.
    pub fn new(n: usize) -> KvTable {
        let cells = Cells::new(n);
        let n_pages = cells.pos.len() / PAGE_CELLS;
        KvTable {
            cells,
            holders: vec![0; n_pages],
            free: (0..n_pages as u32).rev().collect(),
            sequences: Vec::new(),
        }
    }

    /// State of all cells, as a batch wants it.
    pub fn cells(&self) -> &Cells {
        &self.cells
    }

    /// Cells in pages nobody holds.
    pub fn free_cells(&self) -> usize {
        self.free.len() * PAGE_CELLS
    }

    /// A new, empty sequence.
    pub fn add(&mut self) -> SequenceId {
        let slot = self.sequences.iter().position(Option::is_none).unwrap_or_else(|| {
            self.sequences.push(None);
            self.sequences.len() - 1
        });
        self.sequences[slot] = Some(Sequence::default());
        SequenceId(slot as u32)
    }

    fn get(&self, id: SequenceId) -> &Sequence {
        self.sequences
            .get(id.0 as usize)
            .and_then(Option::as_ref)
            .expect("invariant: ids outlive no sequence")
    }

    fn get_mut(&mut self, id: SequenceId) -> &mut Sequence {
        self.sequences
            .get_mut(id.0 as usize)
            .and_then(Option::as_mut)
            .expect("invariant: ids outlive no sequence")
    }

    /// Positions the sequence holds.
    pub fn len(&self, id: SequenceId) -> usize {
        self.get(id).len
    }

    /// Whether the sequence holds none.
    pub fn is_empty(&self, id: SequenceId) -> bool {
        self.len(id) == 0
    }

    /// The sequence's pages, oldest first.
    pub fn pages(&self, id: SequenceId) -> &[u32] {
        &self.get(id).pages
    }

    /// The cell of a position of the sequence; `None` where it was folded.
    pub fn cell(&self, id: SequenceId, position: usize) -> Option<u32> {
        let sequence = self.get(id);
        let slot = (position / PAGE_CELLS).checked_sub(sequence.folded)?;
        let page = sequence.pages.get(sequence.packed + slot)?;
        Some(page * PAGE_CELLS as u32 + (position % PAGE_CELLS) as u32)
    }

    /// How many pages hold the positions before `before * 16`, or what is left of them, where no other sequence holds any of these.
    pub fn own_pages(&self, id: SequenceId, before: usize) -> Option<usize> {
        let sequence = self.get(id);
        let n = sequence.packed + before.checked_sub(sequence.folded)?;
        let own = |pages: &[u32]| pages.iter().all(|&page| self.holders[page as usize] == 1);
        sequence.pages.get(..n).is_some_and(own).then_some(n)
    }

    /// Folds the positions before `before * 16`, whose pages are the first [`KvTable::own_pages`]: what is left of them is in the
    /// first `kept` pages, and the others are free.
    pub fn fold(&mut self, id: SequenceId, before: usize, kept: usize) {
        let sequence = self.get_mut(id);
        let n = sequence.packed + before - sequence.folded;
        debug_assert!(before * PAGE_CELLS <= sequence.len && kept <= n);
        let dropped: Vec<u32> = sequence.pages.drain(kept..n).collect();
        (sequence.packed, sequence.folded) = (kept, before);
        dropped.into_iter().for_each(|page| self.release(page));
    }

    /// Gives the sequence `n` more positions, whose cells a batch may then write.
    ///
    /// # Errors
    /// [`ErrorKind::DoesNotFit`] where too few cells are free; nothing has changed then.
    pub fn append(&mut self, id: SequenceId, n: usize) -> Result<()> {
        let old = self.get(id).len;
        let new = old + n;
        let wanted = new.div_ceil(PAGE_CELLS) - old.div_ceil(PAGE_CELLS);
        if wanted > self.free.len() {
            return Err(Error::new(
                ErrorKind::DoesNotFit,
                format!(
                    "the KV cache is full: {n} more tokens need {} cells and {} of {} are free; \
                     end a conversation or give a larger context with --ctx",
                    wanted * PAGE_CELLS,
                    self.free_cells(),
                    self.cells.pos.len()
                ),
            ));
        }
        for _ in 0..wanted {
            let page = self.free.pop().expect("invariant: counted above");
            self.holders[page as usize] = 1;
            self.get_mut(id).pages.push(page);
        }
        self.get_mut(id).len = new;
        for position in old..new {
            let Some(cell) = self.cell(id, position).map(|cell| cell as usize) else { continue };
            self.cells.pos[cell] = i32::try_from(position).expect("invariant: far fewer than 2^31 cells");
        }
        Ok(())
    }

    /// Keeps the first `len` positions and gives back the length that is left: `len`, or less where that lies
    /// inside a page that another sequence holds too, or 0 where it was folded.
    pub fn truncate(&mut self, id: SequenceId, len: usize) -> usize {
        let old = self.get(id).len;
        if len >= old {
            return old;
        }
        let Sequence { packed, folded, .. } = *self.get(id);
        // What is left of folded positions is of later ones as well, and what is cut inside a shared page gives the whole page up.
        let len = if len < folded * PAGE_CELLS { 0 } else { len };
        let own = |cell: u32| self.holders[cell as usize / PAGE_CELLS] == 1;
        let cut = !len.is_multiple_of(PAGE_CELLS) && !self.cell(id, len).is_some_and(own);
        let len = if cut { len / PAGE_CELLS * PAGE_CELLS } else { len };
        let kept = len.div_ceil(PAGE_CELLS);
        for position in len..old.min(kept * PAGE_CELLS) {
            if let Some(cell) = self.cell(id, position) {
                self.clear(cell as usize..cell as usize + 1);
            }
        }
        let sequence = self.get_mut(id);
        sequence.len = len;
        let pages = if len == 0 { 0 } else { packed + kept - folded };
        let dropped = sequence.pages.split_off(pages);
        if len == 0 {
            (sequence.packed, sequence.folded) = (0, 0);
        }
        dropped.into_iter().rev().for_each(|page| self.release(page));
        len
    }

    /// A new sequence with the same beginning, and how many positions it has: those in full pages.
    pub fn fork(&mut self, id: SequenceId) -> (SequenceId, usize) {
        let Sequence { ref pages, packed, folded, len } = *self.get(id);
        let full = len / PAGE_CELLS;
        let pages = pages[..packed + full - folded].to_vec();
        pages.iter().for_each(|&page| self.holders[page as usize] += 1);
        let fork = self.add();
        *self.get_mut(fork) = Sequence { pages, packed, folded, len: full * PAGE_CELLS };
        (fork, full * PAGE_CELLS)
    }

    /// Ends the sequence; its id must not be used again.
    pub fn remove(&mut self, id: SequenceId) {
        self.truncate(id, 0);
        self.sequences[id.0 as usize] = None;
    }

    /// Pins or unpins a position, in every sequence that shares its cell. A folded one stays gone.
    pub fn pin(&mut self, id: SequenceId, position: usize, pinned: bool) {
        if let Some(cell) = self.cell(id, position) {
            self.cells.pinned[cell as usize] = pinned;
        }
    }

    fn release(&mut self, page: u32) {
        self.holders[page as usize] -= 1;
        if self.holders[page as usize] == 0 {
            let first = page as usize * PAGE_CELLS;
            self.clear(first..first + PAGE_CELLS);
            self.free.push(page);
        }
    }

    fn clear(&mut self, cells: std::ops::Range<usize>) {
        self.cells.pos[cells.clone()].fill(EMPTY);
        self.cells.pinned[cells].fill(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every cell's position agrees with the sequences, and every page is either free or held.
    fn check(table: &KvTable) {
        let mut pos = vec![EMPTY; table.cells.pos.len()];
        let mut holders = vec![0; table.holders.len()];
        for (i, sequence) in table.sequences.iter().enumerate() {
            let Some(sequence) = sequence else { continue };
            let slots = sequence.len.div_ceil(PAGE_CELLS);
            assert_eq!(sequence.pages.len(), sequence.packed + slots - sequence.folded);
            // Folded positions have no cells of their own, but what is left of them is written.
            for &page in &sequence.pages[..sequence.packed] {
                let cells = page as usize * PAGE_CELLS..(page as usize + 1) * PAGE_CELLS;
                pos[cells.clone()].copy_from_slice(&table.cells.pos[cells.clone()]);
                assert!(
                    pos[cells].iter().all(|&pos| pos >= 0 && (pos as usize) < sequence.folded * PAGE_CELLS)
                );
            }
            sequence.pages.iter().for_each(|&page| holders[page as usize] += 1);
            for p in 0..sequence.len {
                if let Some(cell) = table.cell(SequenceId(i as u32), p) {
                    pos[cell as usize] = p as i32;
                }
            }
        }
        assert_eq!(table.cells.pos, pos);
        assert_eq!(table.holders, holders);
        let mut free: Vec<u32> = table.free.clone();
        free.sort_unstable();
        let unheld: Vec<u32> = (0..holders.len() as u32).filter(|&p| holders[p as usize] == 0).collect();
        assert_eq!(free, unheld);
    }

    #[test]
    fn sequences_come_grow_shrink_and_go() {
        let mut table = KvTable::new(6 * PAGE_CELLS - 3);
        let a = table.add();
        table.append(a, 2 * PAGE_CELLS + 5).unwrap();
        let (b, kept) = table.fork(a);
        assert_eq!((kept, table.len(b)), (2 * PAGE_CELLS, 2 * PAGE_CELLS));
        table.append(b, 3).unwrap();
        check(&table);
        assert_eq!(table.free_cells(), 2 * PAGE_CELLS);

        assert_eq!(table.truncate(a, 2 * PAGE_CELLS + 1), 2 * PAGE_CELLS + 1);
        assert_eq!(table.truncate(a, 20), PAGE_CELLS, "a cut inside a shared page gives the page up");
        check(&table);
        assert_eq!(table.truncate(b, 20), 20, "nobody shares it any more");
        check(&table);

        table.remove(a);
        check(&table);
        let full = table.append(b, 6 * PAGE_CELLS).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::DoesNotFit);
        check(&table);
        table.append(b, 6 * PAGE_CELLS - 20).unwrap();
        assert_eq!(table.free_cells(), 0);
        table.remove(b);
        check(&table);
        assert_eq!(table.free_cells(), 6 * PAGE_CELLS);
    }

    #[test]
    fn folded_pages_are_free_and_positions_stay() {
        let mut table = KvTable::new(5 * PAGE_CELLS);
        let a = table.add();
        table.append(a, 3 * PAGE_CELLS + 2).unwrap();
        let pages = table.pages(a).to_vec();
        assert_eq!(table.own_pages(a, 2), Some(2));
        table.fold(a, 2, 1);
        check(&table);
        assert_eq!(table.free_cells(), 2 * PAGE_CELLS);
        assert_eq!((table.len(a), table.cell(a, 2 * PAGE_CELLS - 1)), (3 * PAGE_CELLS + 2, None));
        assert_eq!(table.cell(a, 2 * PAGE_CELLS), Some(pages[2] * PAGE_CELLS as u32));
        assert_eq!(table.pages(a), [pages[0], pages[2], pages[3]]);
        table.append(a, 2 * PAGE_CELLS - 2).unwrap();
        check(&table);
        assert_eq!(table.own_pages(a, 1), None);
        assert_eq!(table.own_pages(a, 3), Some(2));
        table.fold(a, 3, 1);
        check(&table);
        assert_eq!(table.truncate(a, 3 * PAGE_CELLS + 3), 3 * PAGE_CELLS + 3);
        let (b, kept) = table.fork(a);
        assert_eq!((kept, table.own_pages(a, 3)), (3 * PAGE_CELLS, None));
        check(&table);
        assert_eq!(
            table.truncate(a, 3 * PAGE_CELLS - 1),
            0,
            "what is left of folded positions cannot be cut"
        );
        check(&table);
        table.append(b, 2 * PAGE_CELLS).unwrap();
        table.remove(a);
        table.remove(b);
        check(&table);
        assert_eq!(table.free_cells(), 5 * PAGE_CELLS);
    }

    #[test]
    fn pins_go_with_their_cells() {
        let mut table = KvTable::new(2 * PAGE_CELLS);
        let a = table.add();
        table.append(a, 10).unwrap();
        table.pin(a, 7, true);
        assert_eq!(table.cells().pinned.iter().filter(|&&p| p).count(), 1);
        table.truncate(a, 5);
        table.append(a, 5).unwrap();
        assert!(table.cells().pinned.iter().all(|&p| !p));
    }
}
