//! Masks as data: a rule turns (query position, cell) into visible or not. No kernel knows what a function is.

/// Cells in one page of the KV cache: the unit of allocation, of key bounds and of page selection.
pub const PAGE_CELLS: usize = 16;

/// How much of the spread of a page's keys counts when pages are chosen ([`crate::Op::SelectPages`]).
pub const PAGE_SPREAD: f32 = 0.5;

/// Which cells of its own sequence a query sees. Causality (`cell.pos <= query.pos`) always holds.
///
/// A cell is visible if it lies in the window, is a sink, is pinned (where pins count), or its page was
/// selected for this query and KV head. Without a window every earlier cell is visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MaskRule {
    /// A query sees this many keys, itself included (`q - k < window`). `None`: all earlier ones.
    pub window: Option<u32>,
    /// The first cells of the sequence (`pos < sinks`) stay visible outside the window
    /// (StreamingLLM, arXiv 2309.17453).
    pub sinks: u32,
    /// Pinned cells stay visible outside the window.
    pub pins: bool,
}

impl MaskRule {
    /// Plain causal attention.
    pub const CAUSAL: MaskRule = MaskRule { window: None, sinks: 0, pins: false };

    /// Causal attention to the last `window` keys, the query's own included.
    pub const fn sliding(window: u32) -> MaskRule {
        MaskRule { window: Some(window), sinks: 0, pins: false }
    }

    /// Whether a query at `query_pos` sees a cell at `cell_pos` of its own sequence. `selected` says whether the
    /// cell's page was chosen for this query by [`crate::Op::SelectPages`].
    #[inline]
    pub fn visible(&self, query_pos: i32, cell_pos: i32, pinned: bool, selected: bool) -> bool {
        if cell_pos < 0 || cell_pos > query_pos {
            return false;
        }
        match self.window {
            None => true,
            Some(window) => {
                i64::from(query_pos) - i64::from(cell_pos) < i64::from(window)
                    || i64::from(cell_pos) < i64::from(self.sinks)
                    || (self.pins && pinned)
                    || selected
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_w_shows_w_keys() {
        let rule = MaskRule::sliding(3);
        let seen: Vec<i32> = (-1..12).filter(|&k| rule.visible(10, k, false, false)).collect();
        assert_eq!(seen, [8, 9, 10]);
    }

    #[test]
    fn sinks_pins_and_selected_pages_reach_past_the_window() {
        let rule = MaskRule { window: Some(2), sinks: 1, pins: true };
        assert!(rule.visible(10, 0, false, false));
        assert!(!rule.visible(10, 1, false, false));
        assert!(rule.visible(10, 1, true, false));
        assert!(rule.visible(10, 1, false, true));
        assert!(!rule.visible(10, 11, true, true), "the future stays hidden");
        assert!(!MaskRule { pins: false, ..rule }.visible(10, 1, true, false));
    }
}
