//! Which KV cells belong to whom: sequences hold pages of [`PAGE_CELLS`] cells, and full pages can be shared.
//!
//! ```text
//! sequence a  [ page 0 | page 3 | page 4 ]        page 0 is shared: it is full, so nobody writes to it again
//! sequence b  [ page 0 | page 1 ]                 position p of a sequence is cell p % 16 of its page p / 16
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

    /// The cell of a position the sequence holds.
    pub fn cell(&self, id: SequenceId, position: usize) -> u32 {
        let sequence = self.get(id);
        debug_assert!(position < sequence.len);
        sequence.pages[position / PAGE_CELLS] * PAGE_CELLS as u32 + (position % PAGE_CELLS) as u32
    }

    /// Gives the sequence `n` more positions, whose cells a batch may then write.
    ///
    /// # Errors
    /// [`ErrorKind::DoesNotFit`] where too few cells are free; nothing has changed then.
    pub fn append(&mut self, id: SequenceId, n: usize) -> Result<()> {
        let (old, held) = (self.get(id).len, self.get(id).pages.len());
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
        }
        self.get_mut(id).len = new;
        for position in old..new {
            let cell = self.cell(id, position) as usize;
            self.cells.pos[cell] = i32::try_from(position).expect("invariant: far fewer than 2^31 cells");
        }
        Ok(())
    }

    /// Keeps the first `len` positions and gives back the length that is left: `len`, or less where that lies
    /// inside a page another sequence holds too.
    pub fn truncate(&mut self, id: SequenceId, len: usize) -> usize {
        let old = self.get(id).len;
        if len >= old {
            return old;
        }
        let shared = |page: &u32| self.holders[*page as usize] > 1;
        let cut_shared = !len.is_multiple_of(PAGE_CELLS) && shared(&self.get(id).pages[len / PAGE_CELLS]);
        let len = if cut_shared { len / PAGE_CELLS * PAGE_CELLS } else { len };
        let kept_pages = len.div_ceil(PAGE_CELLS);
        for position in len..old.min(kept_pages * PAGE_CELLS) {
            let cell = self.cell(id, position) as usize;
            self.clear(cell..cell + 1);
        }
        let dropped = self.get_mut(id).pages.split_off(kept_pages);
        self.get_mut(id).len = len;
        dropped.into_iter().rev().for_each(|page| self.release(page));
        len
    }

    /// A new sequence with the same beginning, and how many positions it has: those in full pages.
    pub fn fork(&mut self, id: SequenceId) -> (SequenceId, usize) {
        let full = self.get(id).len / PAGE_CELLS;
        let pages = self.get(id).pages[..full].to_vec();
        pages.iter().for_each(|&page| self.holders[page as usize] += 1);
        let fork = self.add();
        *self.get_mut(fork) = Sequence { pages, len: full * PAGE_CELLS };
        (fork, full * PAGE_CELLS)
    }

    /// Ends the sequence; its id must not be used again.
    pub fn remove(&mut self, id: SequenceId) {
        self.truncate(id, 0);
        self.sequences[id.0 as usize] = None;
    }

    /// Pins or unpins a position, in every sequence that shares its cell.
    pub fn pin(&mut self, id: SequenceId, position: usize, pinned: bool) {
        let cell = self.cell(id, position) as usize;
        self.cells.pinned[cell] = pinned;
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
            assert_eq!(sequence.pages.len(), sequence.len.div_ceil(PAGE_CELLS));
            sequence.pages.iter().for_each(|&page| holders[page as usize] += 1);
            for p in 0..sequence.len {
                pos[table.cell(SequenceId(i as u32), p) as usize] = p as i32;
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
