//! GGUF files: read, validate, write and map (versions 2 and 3, little-endian).
//!
//! [`Gguf::open`] maps a model and checks all of it before it returns: every count, length, offset, size and
//! type. What it hands out afterwards cannot fail for lack of bytes: a [`TensorInfo`]'s data is a view whose
//! existence proves its bounds, and the typed readers of [`Metadata`] say which key is missing or has another
//! type. Opening allocates at most twice the size of the file and 16 MiB, whatever the file claims.
//!
//! Layout of a file, all numbers little-endian, a string being a `u64` length and that many bytes:
//!
//! ```text
//! "GGUF"  version u32  n_tensors u64  n_keys u64
//! n_keys    x { key string, type u32, value }            array value: type u32, count u64, values
//! n_tensors x { name string, n_dims u32, dims u64 x n_dims, type u32, offset u64 }
//! padding to general.alignment (32 unless given)
//! tensor data, each tensor at its offset from here, each offset a multiple of the alignment
//! ```
//!
//! Source: the GGUF specification in the ggml repository (`docs/gguf.md`).
#![deny(unsafe_code)]

mod cursor;
mod error;
mod index;
mod map;
mod metadata;
mod model;
mod parse;
mod split;
mod tensor;
mod value;
mod write;

pub use error::Error;
pub use metadata::Metadata;
pub use model::Gguf;
pub use tensor::{Dims, TensorInfo};
pub use value::{Array, Strings, Value};
pub use write::{Staged, TensorSpec, remove_leftovers, stage, write, write_to};
