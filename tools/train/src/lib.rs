//! Training, framework-free: every operation forward and backward, optimizers, data, checkpoints.
//!
//! ```text
//! commands  what the program does, one file each
//! run       a run: settings, steps, checkpoints, loss curve
//! ablation  which ideas earn their place
//! data      documents -> pieces of tokens -> packed sequences
//! optim     Muon, AdamW, learning rates
//! model     the network: sizes, tensors, forward and backward
//! ops       each operation forward and backward, over f32 and f64
//! tokenizer documents -> vocabulary
//! corpus    packages -> documents, split into train and held out
//! ```
#![forbid(unsafe_code)]

pub mod ablation;
pub mod commands;
pub mod corpus;
pub mod data;
pub mod evaluate;
pub mod export;
pub mod import;
pub mod model;
pub mod ops;
pub mod optim;
pub mod real;
pub mod rng;
pub mod run;
pub mod tokenizer;
