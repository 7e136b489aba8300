//! The engine: from a GGUF file to text.
//!
//! ```text
//! file -> Model (map, check, plan, tokenizer) -> Session (device, KV cache) -> generate / score
//! ```
//!
//! ```no_run
//! # use std::{ops::ControlFlow, path::Path, sync::Arc};
//! # use cchaha::{GenerateRequest, Model, Session, SessionOptions, generate, text::Special};
//! # fn main() -> Result<(), cchaha::Error> {
//! let model = Arc::new(Model::open(Path::new("model.gguf"))?);
//! let mut session = Session::new(&model, &SessionOptions::default())?;
//! let prompt = model.tokenizer().encode_prompt("def fibonacci(n):", Special::Plain);
//! session.set_prompt(&prompt, &mut |_| ControlFlow::Continue(()))?;
//! let request = GenerateRequest { max_tokens: 64, ..GenerateRequest::default() };
//! generate(&mut session, &request, &mut |piece| {
//!     print!("{}", piece.text);
//!     ControlFlow::Continue(())
//! })?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod cache;
pub mod chat;
pub mod code;
mod device;
mod error;
mod fallback;
pub mod fim;
mod generate;
mod generate_all;
mod heal;
mod kv;
mod memory;
mod model;
pub mod models;
mod offload;
mod probe;
mod rope;
pub mod sample;
mod scheduler;
mod score;
mod session;
pub mod text;
mod window;

pub use cchaha_gguf as gguf;
pub use cchaha_kernels as kernels;
pub use cchaha_plan as plan;
pub use cchaha_shaders as shaders;

pub use cache::folder as cache_folder;
pub use device::{DEVICES, Device, blocks, cpu};
pub use error::{Error, ErrorKind, Result};
pub use generate::{Finish, FinishReason, GenerateRequest, Piece, generate};
pub use generate_all::{Job, generate_all};
pub use heal::heal;
pub use kv::{KvTable, SequenceId};
pub use memory::{Memory, bytes_text, memory};
pub use model::Model;
pub use probe::{product_seconds, products_per_s};
pub use rope::{ROPES, RopeKind, RopeOptions};
pub use scheduler::{Listener, Progress, Request, Scheduler, Wanted};
pub use score::{ScoreRequest, Scores, score};
pub use session::{DEFAULT_CONTEXT, Session, SessionOptions, Upload};
pub use window::{
    FULL_BUDGET, Fate, MIN_BUDGET, OFFERED, POLICIES, Place, Policy, Prior, Seen, WindowOptions,
    dynamic_budget, places,
};
