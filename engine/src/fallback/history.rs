//! The token behind every KV cell, so that another device can evaluate it again.

use cchaha_plan::{Batch, Cells, Limits, PAGE_CELLS, Result, Runner};

/// Marks a cell that was never written.
const UNWRITTEN: u32 = u32::MAX;

/// See the file's header. Everything is allocated once, but for page lists that are new.
#[derive(Debug)]
pub(super) struct History {
    axes: usize,
    /// For each cell.
    tokens: Vec<u32>,
    /// `[cells, axes]`.
    positions: Vec<i32>,
    /// For each cell, which of `lists` its sequence had when it was written, and how many pages of it.
    seen: Vec<(u32, u32)>,
    /// Page lists; a sequence that grows extends its own.
    lists: Vec<Vec<u32>>,
}

impl History {
    pub(super) fn new(limits: &Limits, axes: usize) -> History {
        let cells = limits.cells.next_multiple_of(PAGE_CELLS);
        History {
            axes,
            tokens: vec![0; cells],
            positions: vec![0; cells * axes],
            seen: vec![(UNWRITTEN, 0); cells],
            lists: Vec::new(),
        }
    }

    pub(super) fn remember(&mut self, batch: &Batch<'_>) {
        let axes = self.axes;
        for t in 0..batch.tokens.len() {
            let pages = batch.sequences[batch.sequence[t] as usize];
            let list = self.list(pages);
            let cell = batch.cell[t] as usize;
            self.tokens[cell] = batch.tokens[t];
            self.positions[cell * axes..][..axes].copy_from_slice(&batch.positions[t * axes..][..axes]);
            self.seen[cell] = (list, pages.len() as u32);
        }
    }

    /// A token that was not known when its cell was written.
    pub(super) fn set_token(&mut self, cell: u32, token: u32) {
        self.tokens[cell as usize] = token;
    }

    /// The list that begins with these pages, or is their beginning and grows.
    fn list(&mut self, pages: &[u32]) -> u32 {
        let alike = |list: &Vec<u32>| list.iter().zip(pages).all(|(a, b)| a == b);
        if let Some(known) = self.lists.iter().rposition(alike) {
            let list = &mut self.lists[known];
            list.extend_from_slice(pages.get(list.len()..).unwrap_or_default());
            return known as u32;
        }
        if self.lists.len() >= self.seen.len() {
            self.forget_unused();
        }
        self.lists.push(pages.to_vec());
        self.lists.len() as u32 - 1
    }

    /// Drops the lists no cell names. Afterwards there are at most as many as cells.
    fn forget_unused(&mut self) {
        let mut kept: Vec<Vec<u32>> = Vec::new();
        let mut place = vec![UNWRITTEN; self.lists.len()];
        for (list, _) in self.seen.iter_mut().filter(|(list, _)| *list != UNWRITTEN) {
            let place = &mut place[*list as usize];
            if *place == UNWRITTEN {
                *place = kept.len() as u32;
                kept.push(std::mem::take(&mut self.lists[*list as usize]));
            }
            *list = *place;
        }
        self.lists = kept;
    }

    /// Evaluates what the cells hold on another runner, in the order of positions.
    pub(super) fn replay(&self, cells: &Cells, batch: usize, runner: &mut dyn Runner) -> Result<()> {
        let position = |cell: usize| self.positions[cell * self.axes];
        let mut live: Vec<usize> = (0..self.seen.len())
            .filter(|&cell| self.seen[cell].0 != UNWRITTEN && cells.pos[cell] == position(cell))
            .collect();
        live.sort_by_key(|&cell| position(cell));
        for chunk in live.chunks(batch) {
            let mut lists: Vec<(u32, u32)> = Vec::new();
            let mut sequence = Vec::with_capacity(chunk.len());
            for &cell in chunk {
                let known = lists.iter().position(|list| *list == self.seen[cell]);
                sequence.push(known.unwrap_or(lists.len()) as u32);
                if known.is_none() {
                    lists.push(self.seen[cell]);
                }
            }
            let pages = |&(list, len): &(u32, u32)| &self.lists[list as usize][..len as usize];
            let tokens: Vec<u32> = chunk.iter().map(|&cell| self.tokens[cell]).collect();
            let positions = chunk.iter().flat_map(|&cell| &self.positions[cell * self.axes..][..self.axes]);
            let positions: Vec<i32> = positions.copied().collect();
            let cell: Vec<u32> = chunk.iter().map(|&cell| cell as u32).collect();
            runner.run(&Batch {
                tokens: &tokens,
                positions: &positions,
                sequence: &sequence,
                cell: &cell,
                logits: &[],
                coarse: &[],
                sequences: &lists.iter().map(pages).collect::<Vec<_>>(),
                cells,
            })?;
        }
        Ok(())
    }
}
