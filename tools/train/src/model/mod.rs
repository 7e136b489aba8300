//! The `cchaha` architecture: sizes, where its tensors lie, and its forward and backward pass.
//!
//! ```text
//! x = embed(token)
//! layer:  x += Wo attend(rope(norm(Wq n)), rope(norm(Wk n)), Wv n),  n = norm(x)
//!         x += Wdown (silu(Wgate n) * Wup n),                        n = norm(x)
//! logits = embed^T norm(x)
//! ```

mod batch;
mod config;
mod layout;
mod network;

pub use batch::{Batch, Sequence};
pub use config::Config;
pub(crate) use config::EPS;
pub use layout::{Kind, Layout, Tensor};
pub use network::{Network, Step};
