//! The trait every back end implements.

use std::sync::Arc;

use crate::{Batch, BufferId, Error, Plan, Result, WeightId};

/// How much a runner must be able to hold; everything is allocated for it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// KV cells, rounded up to whole pages.
    pub cells: usize,
    /// Tokens in one batch.
    pub batch: usize,
    /// Rows of logits wanted from one batch.
    pub logits: usize,
}

/// Bytes a runner allocates beside the mapped weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// KV cache.
    pub kv_bytes: u64,
    /// Activations, tables and scratch.
    pub buffer_bytes: u64,
}

impl Footprint {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.kv_bytes + self.buffer_bytes
    }
}

/// Turns plans into something that runs: picks kernels and allocates everything.
pub trait Backend: Send + Sync {
    /// For messages, for example `cpu (avx2, 8 threads)`.
    fn name(&self) -> String;

    /// What [`Backend::prepare`] would allocate.
    fn footprint(&self, plan: &Plan, limits: &Limits) -> Footprint;

    /// Validates the plan, picks a kernel for every step, allocates everything.
    ///
    /// # Errors
    /// Where the plan is inconsistent, no kernel accepts a step, or memory does not suffice.
    fn prepare(&self, plan: Arc<Plan>, limits: Limits) -> Result<Box<dyn Runner>>;
}

/// A prepared plan with its KV cache.
pub trait Runner: Send {
    /// Runs one batch and returns its logits, `[batch.logits.len(), plan.outputs()]`. Allocates
    /// nothing, but for weights that a processor packs, which leave the mapped file for it.
    ///
    /// # Errors
    /// Where the batch breaks the limits or the device fails.
    fn run(&mut self, batch: &Batch<'_>) -> Result<&[f32]>;

    /// Sets the first rows of a buffer for the next batch: for the second part of a [`crate::Split`].
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] where this back end cannot be handed anything.
    fn fill(&mut self, _buffer: BufferId, _rows: &[f32]) -> Result<()> {
        Err(Error::unsupported("this device cannot go on from what another one computed; use the cpu"))
    }

    /// In every cache with an [`crate::Op::QueryStore`], and for each KV head by itself, keeps `keep` of the cells of the first `old`
    /// of `pages`, and moves them together, in their order, to the first of these cells: the first `sinks`, then those with the
    /// greatest sum, over the stored queries of the group's heads, of `softmax_c(scale * q . k_c)`; of equals the first (SnapKV, arXiv
    /// 2404.14469). `pages` are all of a sequence, full; the queries stored last are those of its last page, and the softmax is over
    /// the cells of the others. What old cells hold that are not among the first `keep` is nobody's afterwards.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] where this back end cannot fold; where the device fails.
    fn fold(&mut self, _pages: &[u32], _old: usize, _sinks: usize, _keep: usize) -> Result<()> {
        Err(Error::unsupported("this device cannot fold; use the cpu"))
    }

    /// Steps that do not wait for each other, where this back end has them.
    fn greedy(&mut self) -> Option<&mut dyn Greedy> {
        None
    }

    /// From now on shows `observer` what it works on.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] where this back end cannot show it.
    fn observe(&mut self, _observer: Box<dyn Observer>) -> Result<()> {
        Err(Error::unsupported("this device does not show what it works on; use the cpu"))
    }
}

/// Choosing the likeliest token on the device, so that the next step can begin before the host knows the token.
pub trait Greedy {
    /// Begins a batch of one token whose logits are wanted. Where `fed`, its token is the likeliest one after the batch begun
    /// before it, whatever `batch.tokens` says. At most two batches may be under way.
    ///
    /// # Errors
    /// Where the batch breaks the limits or the device fails.
    fn begin(&mut self, batch: &Batch<'_>, fed: bool) -> Result<()>;

    /// Waits for the oldest batch begun and returns the likeliest token after it; the lowest of equals.
    ///
    /// # Errors
    /// Where no batch is under way or the device fails.
    fn finish(&mut self) -> Result<u32>;
}

/// Sees what a runner works on.
pub trait Observer: Send + Sync {
    /// Matrix `expert` of `weight` (0 for an ordinary one) is about to be multiplied with the rows of `x`,
    /// `[rows, cols]` for a weight of `cols` columns.
    fn input(&mut self, _weight: WeightId, _expert: usize, _x: &[f32]) {}

    /// The query of one token, in one layer and for one KV head, chose this page of the cache.
    fn chosen(&mut self, _page: usize) {}
}
