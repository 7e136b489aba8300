//! From documents to training sequences.
//!
//! ```text
//! documents --stage--> pieces (tokens, scope positions, pins) --cached--> Store --shuffled, packed--> sequences
//! ```

mod fim;
mod pack;
mod stage;
mod store;

pub use pack::{Packer, Position};
pub use stage::{STAGES, Stage};
pub use store::{Piece, Store, Tokens};
