//! What to compute, never how: formats, ops, plans and batches as data, and the trait every back end implements.
//!
//! A [`Plan`] is built once per model from its metadata. A [`Backend`] turns it into a [`Runner`], which runs
//! [`Batch`]es. The meaning of every [`Op`] stands in its documentation; the oracle in `cchaha-kernels` spells it out in f64.
#![forbid(unsafe_code)]

mod backend;
mod batch;
mod check;
mod cost;
mod error;
mod format;
mod mask;
mod op;
mod plan;
mod rope;
mod split;
mod weights;

pub use backend::{Backend, Footprint, Greedy, Limits, Observer, Runner};
pub use batch::{Batch, Cells, EMPTY};
pub use cost::Cost;
pub use error::{Error, ErrorKind, Result};
pub use format::{FORMATS, Format, FormatInfo};
pub use mask::{MaskRule, PAGE_CELLS, PAGE_SPREAD};
pub use op::{Activation, NormKind, Op, Routing};
pub use plan::{
    BufferId, BufferSpec, KvSlot, KvSpec, MaskId, Plan, RopeId, Rows, SelectionId, Shape, Step, Weight,
    WeightId,
};
pub use rope::{RopeLayout, RopePair, RopeTable};
pub use split::Split;
pub use weights::{Bytes, Store};
