//! Which pages to drop: finished bodies first, those with the least to do with the last tokens before the others; then
//! signatures by the same measure; never the sinks, headers of open scopes, or the last tokens.
//!
//! Tried instead (SmolLM2, 5 files of 4096 tokens in 512 cells; sinks and last tokens 0.845 bits per byte, this 0.841): pages that queries of all
//! layers choose least often 0.843 (counted since they left the window 0.867), three quarters for the last tokens 0.841, and both 0.847.

use cchaha_plan::PAGE_CELLS;

use super::pins::Words;
use super::reader::Text;
use super::{Prior, Shares};

/// Slots (16 positions each) in the order they may be dropped.
pub(super) fn order(text: &Text, shares: &Shares, own_window: usize) -> Vec<usize> {
    let recent = shares.recent.max(own_window);
    // The epoch that begins here moves the window on.
    let last = text.tokens().saturating_sub(recent) / PAGE_CELLS;
    let first = (shares.sinks as usize).div_ceil(PAGE_CELLS);
    if shares.prior == Prior::Random {
        let mut slots: Vec<usize> = (first..last).collect();
        slots.sort_by_key(|&i| (i as u32).wrapping_mul(2_654_435_761));
        return slots;
    }
    let mut kept_lines = vec![false; text.line_count() + 1];
    for scope in text.scanner.open_scopes() {
        let header = &text.scanner.scopes()[scope.0 as usize].header;
        (header.start..header.end).for_each(|i| kept_lines[i as usize] = true);
    }
    let words = Words::of(text, recent);
    let lines = text.scanner.lines();
    let mut slots: Vec<(bool, bool, f64, usize)> = (first..last)
        .map(|slot| {
            let from = text.line_of(slot * PAGE_CELLS);
            let to = text.line_of(slot * PAGE_CELLS + PAGE_CELLS - 1);
            let covered = || (from..=to).filter(|&i| i < lines.len());
            let open = covered().any(|i| kept_lines[i]);
            let signature = covered().any(|i| lines[i].pinned());
            let score = covered().map(|i| words.score(text.line_words(i))).sum();
            (open, signature, score, slot)
        })
        .collect();
    slots.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)).then(a.3.cmp(&b.3)));
    slots.into_iter().map(|slot| slot.3).collect()
}
