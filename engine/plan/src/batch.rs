//! What a forward pass runs on: prefill, decode, speculative checks and many users at once are the same call.

use crate::{Error, Limits, PAGE_CELLS, Plan, Result, Rows};

/// Position of a cell that holds nothing.
pub const EMPTY: i32 = -1;

/// What masks know about KV cells. A page is [`PAGE_CELLS`] cells in a row; `page = cell / PAGE_CELLS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cells {
    /// Position on axis 0 of what each cell holds, or [`EMPTY`].
    pub pos: Vec<i32>,
    /// Whether each cell is pinned.
    pub pinned: Vec<bool>,
}

impl Cells {
    /// `n` empty cells, rounded up to whole pages.
    pub fn new(n: usize) -> Cells {
        let n = n.next_multiple_of(PAGE_CELLS);
        Cells { pos: vec![EMPTY; n], pinned: vec![false; n] }
    }
}

/// A batch of tokens and where they belong. `n = tokens.len()`.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Token ids, `[n]`.
    pub tokens: &'a [u32],
    /// Positions per axis, `[n, axes]`.
    pub positions: &'a [i32],
    /// Which of `sequences` each token belongs to, `[n]`.
    pub sequence: &'a [u32],
    /// The cell each token's keys and values are written to, `[n]`; each cell at most once.
    pub cell: &'a [u32],
    /// Tokens whose logits are wanted: indices below `n`, ascending.
    pub logits: &'a [u32],
    /// Tokens that are only read, `[n]`, or empty for none: no other token is chosen by what comes out of them. Their activations may
    /// be rounded more coarsely, to 8 bits of the largest of a run of 32 values.
    pub coarse: &'a [bool],
    /// The pages of each sequence, oldest first. Sequences with a common prefix may share pages.
    pub sequences: &'a [&'a [u32]],
    /// State of all cells, this batch's tokens included.
    pub cells: &'a Cells,
}

impl Batch<'_> {
    /// Whether row `row` of a buffer with these rows belongs to a coarse token.
    pub fn is_coarse(&self, rows: Rows, row: usize) -> bool {
        let token = match rows {
            Rows::Tokens => row,
            Rows::Logits => self.logits[row] as usize,
        };
        self.coarse.get(token).is_some_and(|coarse| *coarse)
    }

    /// Checks every index, so that kernels may rely on them.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Usage`] naming the field.
    pub fn validate(&self, plan: &Plan, limits: &Limits) -> Result<()> {
        let n = self.tokens.len();
        let cells = limits.cells.next_multiple_of(PAGE_CELLS);
        let pages = (cells / PAGE_CELLS) as u32;
        let fail = |what: &str| Err(Error::usage(format!("batch of {n} tokens: {what}")));
        if n == 0 || n > limits.batch {
            return fail(&format!("must hold 1 to {} tokens", limits.batch));
        }
        if self.positions.len() != n * plan.axes || self.sequence.len() != n || self.cell.len() != n {
            return fail("positions, sequences and cells must match the tokens");
        }
        if self.logits.len() > limits.logits {
            return fail(&format!("at most {} rows of logits", limits.logits));
        }
        if self.logits.iter().any(|&row| row as usize >= n) || !self.logits.is_sorted_by(|a, b| a < b) {
            return fail("logits rows must be ascending token indices");
        }
        if !self.coarse.is_empty() && self.coarse.len() != n {
            return fail("coarse must match the tokens or be empty");
        }
        if let Some(&token) = self.tokens.iter().find(|&&token| token as usize >= plan.vocab) {
            return fail(&format!("token {token} is not among the model's {}", plan.vocab));
        }
        if self.cells.pos.len() != cells || self.cells.pinned.len() != cells {
            return fail(&format!("the cell table must have {cells} entries"));
        }
        if self.sequences.iter().any(|list| list.iter().any(|&page| page >= pages)) {
            return fail(&format!("a page number is not below {pages}"));
        }
        for t in 0..n {
            let (cell, sequence) = (self.cell[t], self.sequence[t] as usize);
            let Some(list) = self.sequences.get(sequence) else {
                return fail(&format!("token {t} names sequence {sequence}, which does not exist"));
            };
            if cell as usize >= cells || !list.contains(&(cell / PAGE_CELLS as u32)) {
                return fail(&format!("token {t} writes cell {cell}, which is not of its sequence"));
            }
            if self.cells.pos[cell as usize] != self.positions[t * plan.axes] {
                return fail(&format!("cell {cell} does not carry the position of token {t}"));
            }
        }
        Ok(())
    }
}
