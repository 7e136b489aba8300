//! The code window: which earlier tokens attention sees when it must not see all, and which stay in memory.
//!
//! A policy is data: shares of a budget. They become a mask and, where pages are chosen by the query, a SelectPages step
//! in front of every Attend ([`budgeted`]); what changes while a text is read are pins and what is folded ([`Reader`]).
//! Layers with a window of their own keep it.

mod dynamic;
mod explain;
mod pins;
mod reader;
mod tally;

pub use dynamic::{FULL_BUDGET, dynamic_budget};
pub(crate) use reader::Reader;
pub use reader::{Fate, Place, Seen, places};
pub(crate) use tally::Tally;

use cchaha_plan::{MaskId, MaskRule, Op, PAGE_CELLS, Plan, SelectionId, Step};

use crate::code::{Language, PLAIN};
use crate::error::{Error, Result};

/// Which earlier tokens a budget of cells is spent on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// As options spell it.
    pub name: &'static str,
    /// One line of help.
    pub about: &'static str,
    /// Whether there is a budget at all.
    budgeted: bool,
    sinks: u32,
    /// Sixteenths of the budget for pins.
    pins: usize,
    /// What is pinned.
    prior: Prior,
    /// Sixteenths of the budget for pages chosen by the query.
    pages: usize,
    /// Drop what is beyond the budget: each KV head for itself.
    folds: bool,
}

/// Which lines are pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prior {
    /// None.
    Nothing,
    /// Headers of open scopes, then imports, then the latest headers.
    Headers,
    /// Headers of open scopes.
    Open,
    /// Headers of open scopes, then imports and headers that share rare names with the last tokens.
    Names,
    /// Any: the control for the others.
    Random,
}

const FULL: Policy = Policy {
    name: "full",
    about: "all earlier tokens",
    budgeted: false,
    sinks: 0,
    pins: 0,
    prior: Prior::Nothing,
    pages: 0,
    folds: false,
};

/// Attention sinks: the first tokens, which take what attention goes nowhere else (arXiv 2309.17453).
const SINKS: u32 = 4;

/// All policies; the last ones are controls and priors that studies compare (`docs/code-window.md`).
pub static POLICIES: [Policy; 12] = [
    FULL,
    Policy { name: "window", about: "the last tokens", budgeted: true, ..FULL },
    Policy { name: "sinks", about: "the first 4 and the last tokens", sinks: SINKS, budgeted: true, ..FULL },
    Policy {
        name: "pages",
        about: "an eighth of the budget for the last tokens, the rest for pages the query chooses",
        pages: 14,
        ..BUDGETED
    },
    Policy {
        name: "structure",
        about: "the same, with pinned headers of open scopes and of names in use",
        pins: 1,
        prior: Prior::Names,
        pages: 13,
        ..BUDGETED
    },
    Policy {
        name: "fold",
        about: "drops what is beyond the budget from memory, what each head attends to least first",
        folds: true,
        ..BUDGETED
    },
    Policy {
        name: "structure-headers",
        about: "pages, with pinned headers and imports",
        pins: 2,
        prior: Prior::Headers,
        pages: 12,
        ..BUDGETED
    },
    Policy {
        name: "structure-open",
        about: "pages, with pinned headers of open scopes",
        pins: 1,
        prior: Prior::Open,
        pages: 13,
        ..BUDGETED
    },
    Policy { name: "pages-8", about: "half of the budget for pages the query chooses", pages: 8, ..BUDGETED },
    Policy {
        name: "pages-12",
        about: "three quarters of the budget for pages the query chooses",
        pages: 12,
        ..BUDGETED
    },
    Policy {
        name: "pins",
        about: "the last tokens and pinned headers and imports",
        pins: 4,
        prior: Prior::Headers,
        ..BUDGETED
    },
    Policy {
        name: "random-pins",
        about: "the last tokens and as many random lines",
        pins: 4,
        prior: Prior::Random,
        ..BUDGETED
    },
];

const BUDGETED: Policy = Policy { budgeted: true, sinks: SINKS, ..FULL };

/// Policies for everyday use: the first of [`POLICIES`].
pub const OFFERED: usize = 6;

impl Policy {
    /// The policy of this name.
    pub fn named(name: &str) -> Option<&'static Policy> {
        POLICIES.iter().find(|policy| policy.name == name)
    }
}

/// What a session is to see of its past.
#[derive(Clone, Copy, Debug)]
pub struct WindowOptions {
    /// How.
    pub policy: &'static Policy,
    /// Cells a query sees, or with `fold` cells that are kept; all where not given.
    pub budget: Option<usize>,
    /// What the text is written in.
    pub language: &'static Language,
}

impl Default for WindowOptions {
    fn default() -> WindowOptions {
        WindowOptions { policy: &POLICIES[3], budget: None, language: &PLAIN }
    }
}

/// Least budget: the window must span more than a page for choices not to depend on batches.
pub const MIN_BUDGET: usize = 4 * PAGE_CELLS;

/// A policy with a budget, in cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// The policy's name.
    pub(crate) policy: &'static str,
    pub(crate) sinks: u32,
    pub(crate) recent: usize,
    pub(crate) pins: usize,
    pub(crate) prior: Prior,
    pub(crate) pages: usize,
    /// Cells kept, where there is folding.
    pub(crate) kept: Option<usize>,
    /// Pins change, and cells are folded, at positions that are multiples of this.
    pub(crate) epoch: usize,
}

impl WindowOptions {
    /// What the budget comes to for a context of `context` tokens; `None` where all of them are seen.
    ///
    /// # Errors
    /// For budgets below [`MIN_BUDGET`].
    pub(crate) fn shares(&self, context: usize) -> Result<Option<Shares>> {
        let Policy { name: policy, budgeted, sinks, pins, prior, pages, folds, .. } = *self.policy;
        let Some(budget) = self.budget.filter(|_| budgeted) else { return Ok(None) };
        if budget < MIN_BUDGET {
            return Err(Error::usage(format!(
                "a KV budget of {budget} cells is too small to be of use; give {MIN_BUDGET} or more"
            )));
        }
        if budget >= context {
            return Ok(None);
        }
        let pins = budget * pins / 16;
        // A window shorter than a page would let a chosen page hold later tokens.
        let room = budget - pins - sinks as usize - PAGE_CELLS;
        let pages = (budget * pages / 16).min(room) / PAGE_CELLS;
        // What shares leave over by rounding, and what sinks do not take, is the window's.
        // Of what is kept, a quarter is the last tokens.
        let recent = if folds { budget / 4 } else { budget - pages * PAGE_CELLS - pins - sinks as usize };
        let epoch = (budget / 8).clamp(PAGE_CELLS, 128) / PAGE_CELLS * PAGE_CELLS;
        let kept = folds.then_some(budget.next_multiple_of(PAGE_CELLS));
        Ok(Some(Shares { policy, sinks, recent, pins, prior, pages, kept, epoch }))
    }
}

/// The plan with every layer that sees everything reduced to these shares.
pub(crate) fn budgeted(plan: &Plan, shares: &Shares) -> Plan {
    let mut plan = plan.clone();
    if shares.kept.is_some() {
        return foldable(plan);
    }
    let rule = MaskRule { window: Some(shares.recent as u32), sinks: shares.sinks, pins: shares.pins > 0 };
    let mask = MaskId(plan.masks.len() as u32);
    plan.masks.push(rule);
    let select = shares.pages > 0;
    plan.selections += usize::from(select);
    let out = SelectionId(plan.selections as u32 - u32::from(select));
    let mut steps = Vec::with_capacity(plan.steps.len());
    for mut step in plan.steps {
        if let Op::Attend { q, slot, n_heads, mask: seen, selection, .. } = &mut step.op
            && plan.masks[seen.index()].window.is_none()
            && selection.is_none()
        {
            *seen = mask;
            if select {
                *selection = Some(out);
                let (q, slot, n_heads) = (*q, *slot, *n_heads);
                let op = Op::SelectPages { q, slot, n_heads, mask, pages: shares.pages, out };
                steps.push(Step { op, layer: step.layer });
            }
        }
        steps.push(step);
    }
    Plan { steps, ..plan }
}

/// The plan with the queries kept of every layer that sees everything.
fn foldable(plan: Plan) -> Plan {
    let mut steps = Vec::with_capacity(plan.steps.len());
    for step in plan.steps {
        if let Op::Attend { q, slot, n_heads, scale, mask, .. } = step.op
            && plan.masks[mask.index()].window.is_none()
        {
            steps.push(Step { op: Op::QueryStore { q, slot, n_heads, scale }, layer: step.layer });
        }
        steps.push(step);
    }
    Plan { steps, ..plan }
}

/// Whether layers of the plan see pins of their own accord.
pub(crate) fn own_pins(plan: &Plan) -> bool {
    plan.masks.iter().any(|mask| mask.pins)
}

/// The longest window a layer of the plan has of its own.
pub(crate) fn own_window(plan: &Plan) -> usize {
    plan.masks.iter().filter_map(|mask| mask.window).max().map_or(0, |window| window as usize)
}
