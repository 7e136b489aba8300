//! Which KV cells belong to whom: sequences hold pages of [`PAGE_CELLS`] cells, and full pages can be shared.
//!
//! ```text
//! sequence a  [ page 0 | page 3 | page 4 ]        page 0 is shared: it is full, so nobody writes to it again
//! sequence b  [ page 0 | page 1 ]                 position p of a sequence is cell p % 16 of its page p / 16
//! sequence c  [ page 2 | folded | page 5 ]        a folded page is gone for good; positions keep their numbers
//! ```
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
    /// The page of every 16 positions; `None` where it was folded.
    slots: Vec<Option<u32>>,
    /// The pages there are, oldest first.
    pages: Vec<u32>,
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

    /// The cell of a position of the sequence; `None` where its page was folded.
    pub fn cell(&self, id: SequenceId, position: usize) -> Option<u32> {
        let page = (*self.get(id).slots.get(position / PAGE_CELLS)?)?;
        Some(page * PAGE_CELLS as u32 + (position % PAGE_CELLS) as u32)
    }

    /// Whether the page of these 16 positions (`slot * 16` and on) is there.
    pub fn holds(&self, id: SequenceId, slot: usize) -> bool {
        self.get(id).slots.get(slot).copied().flatten().is_some()
    }

    /// Drops the page of positions `slot * 16` and on, which must not be the last: its keys and values are gone for
    /// good, and its cells are free.
    pub fn fold(&mut self, id: SequenceId, slot: usize) {
        let sequence = self.get_mut(id);
        debug_assert!(slot + 1 < sequence.slots.len());
        if let Some(page) = sequence.slots[slot].take() {
            sequence.pages.retain(|&other| other != page);
            self.release(page);
        }
    }

    /// Gives the sequence `n` more positions, whose cells a batch may then write.
    ///
    /// # Errors
    /// [`ErrorKind::DoesNotFit`] where too few cells are free; nothing has changed then.
    pub fn append(&mut self, id: SequenceId, n: usize) -> Result<()> {
        let (old, held) = (self.get(id).len, self.get(id).slots.len());
        let new = old + n;
        let wanted = new.div_ceil(PAGE_CELLS) - held;
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
            self.get_mut(id).slots.push(Some(page));
        }
        self.get_mut(id).len = new;
        for position in old..new {
            let Some(cell) = self.cell(id, position).map(|cell| cell as usize) else { continue };
            self.cells.pos[cell] = i32::try_from(position).expect("invariant: far fewer than 2^31 cells");
        }
        Ok(())
    }

    /// Keeps the first `len` positions and gives back the length that is left: `len`, or less where that lies
    /// inside a page that another sequence holds too or that was folded.
    pub fn truncate(&mut self, id: SequenceId, len: usize) -> usize {
        let old = self.get(id).len;
        if len >= old {
            return old;
        }
        // What is cut inside a shared or folded page gives the whole page up.
        let whole = |page: Option<u32>| page.is_some_and(|page| self.holders[page as usize] == 1);
        let cut = !len.is_multiple_of(PAGE_CELLS) && !whole(self.get(id).slots[len / PAGE_CELLS]);
        let len = if cut { len / PAGE_CELLS * PAGE_CELLS } else { len };
        let kept = len.div_ceil(PAGE_CELLS);
        for position in len..old.min(kept * PAGE_CELLS) {
            if let Some(cell) = self.cell(id, position) {
                self.clear(cell as usize..cell as usize + 1);
            }
        }
        let dropped = self.get_mut(id).slots.split_off(kept);
        let sequence = self.get_mut(id);
        sequence.len = len;
        sequence.pages.truncate(sequence.slots.iter().flatten().count());
        dropped.into_iter().flatten().rev().for_each(|page| self.release(page));
        len
    }

    /// A new sequence with the same beginning, and how many positions it has: those in full pages.
    pub fn fork(&mut self, id: SequenceId) -> (SequenceId, usize) {
        let full = self.get(id).len / PAGE_CELLS;
        let slots = self.get(id).slots[..full].to_vec();
        let pages: Vec<u32> = slots.iter().flatten().copied().collect();
        pages.iter().for_each(|&page| self.holders[page as usize] += 1);
        let fork = self.add();
        *self.get_mut(fork) = Sequence { slots, pages, len: full * PAGE_CELLS };
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
            assert_eq!(sequence.slots.len(), sequence.len.div_ceil(PAGE_CELLS));
            assert_eq!(sequence.pages, sequence.slots.iter().flatten().copied().collect::<Vec<_>>());
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
        let mut table = KvTable::new(4 * PAGE_CELLS);
        let a = table.add();
        table.append(a, 3 * PAGE_CELLS + 2).unwrap();
        table.fold(a, 1);
        check(&table);
        assert_eq!(table.free_cells(), PAGE_CELLS);
        assert_eq!((table.len(a), table.cell(a, PAGE_CELLS)), (3 * PAGE_CELLS + 2, None));
        assert_eq!(table.pages(a).len(), 3);
        table.append(a, 2 * PAGE_CELLS - 2).unwrap();
        check(&table);
        assert_eq!(table.truncate(a, 2 * PAGE_CELLS + 3), 2 * PAGE_CELLS + 3);
        let (b, kept) = table.fork(a);
        assert_eq!(kept, 2 * PAGE_CELLS);
        check(&table);
        assert_eq!(table.truncate(b, PAGE_CELLS + 1), PAGE_CELLS, "a cut inside a folded page gives it up");
        assert_eq!(table.truncate(a, 1), 0, "page 0 is shared");
        table.remove(a);
        table.remove(b);
        check(&table);
        assert_eq!(table.free_cells(), 4 * PAGE_CELLS);
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
