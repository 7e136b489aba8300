//! Working memory of one thread, allocated when a plan is prepared.

use crate::activations::{GROUP, GROUP_LINES, Line};

/// See the file's header. Lengths are the largest any step of the plan asks for.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Dequantized weight rows.
    pub(crate) floats: Vec<f32>,
    /// Weight rows in 8 bits; on AArch64 with their scales and offsets.
    pub(crate) lines: Vec<Line>,
    /// Scales and offsets of those.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "they stand with the rows"))]
    pub(crate) sides: Vec<f32>,
    /// Sums of a panel's rows that are not complete, [`Panel::TOTALS`] tokens of them, eight lanes each.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only AVX-512 takes rows in parts"))]
    pub(crate) totals: Vec<f32>,
    /// Keys, values and scores of attention; queries and bounds of a page selection.
    pub(crate) attention: Vec<f32>,
    /// Outputs and states of two splits ([`Sums`](crate::attention::Sums)).
    pub(crate) sums: Vec<f32>,
    pub(crate) states: Vec<[f32; 2]>,
    /// Candidates of a page selection.
    pub(crate) pages: Vec<(f32, u32)>,
}

/// What an empty panel is filled with.
pub(crate) const NO_LINE: Line = Line([0; 32]);

/// Size of a panel of unpacked weight rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panel {
    pub(crate) lines: usize,
    pub(crate) sides: usize,
    pub(crate) totals: usize,
}

impl Panel {
    /// Weight rows unpacked together.
    pub(crate) const ROWS: usize = 16;
    /// Tokens that go through a panel together.
    #[cfg_attr(target_arch = "x86_64", expect(dead_code, reason = "tiles of x86-64 have sizes of their own"))]
    pub(crate) const TOKENS: usize = 8;
    /// Tokens whose sums wait at a time.
    pub(crate) const TOTALS: usize = 96;
    /// Scales (8), offsets (16) and integer scales (16) of a group.
    pub(crate) const SIDES: usize = 40;

    /// The panel of rows of `cols` values. The end of a row that is no whole group may have scales of its own for three parts of it.
    pub(crate) const fn of(cols: usize) -> Panel {
        let groups = Panel::ROWS * cols.div_ceil(GROUP);
        Panel {
            lines: groups * GROUP_LINES,
            sides: (groups + 2 * Panel::ROWS) * Panel::SIDES,
            totals: Panel::TOTALS * Panel::ROWS * 8,
        }
    }
}
