//! What the command-line tools share: how flags are read, results printed, progress shown, and failures reported.
#![forbid(unsafe_code)]

pub mod args;
pub mod exit;
pub mod input;
pub mod interrupt;
pub mod output;
