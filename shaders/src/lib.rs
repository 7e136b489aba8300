//! The GPU twin of every op: hand-written WGSL through wgpu, on any Vulkan, Metal or DX12 device.
//!
//! [`Gpu`] is a [`cchaha_plan::Backend`]. It lowers a plan to dispatches (`lower.rs`), fusing steps where one kernel does them,
//! with all buffers, bind groups and pipelines made once. A batch is then one buffer write of what changed (`frame.rs`),
//! one compute pass and one submit. Kernels are rows of [`registry`], layouts of weights rows of [`LAYOUTS`]; their
//! WGSL stands in `wgsl/`, put together by `compose.rs`.

mod arena;
mod args;
mod compose;
mod device;
mod formats;
mod frame;
mod gpu;
mod greedy;
mod launch;
mod lower;
mod pack;
mod pipelines;
mod probe;
mod profile;
mod registry;
mod runner;
mod selftest;
mod store;
mod tune;
mod vectors;
mod weights;

pub use device::{AdapterInfo, AdapterKind, adapters, hardware_present};
pub use formats::{Blocks, Decode, LAYOUTS, Layout, Unpack};
pub use gpu::{Counts, Gpu, GpuOptions};
pub use profile::KernelTime;
pub use registry::{Kernel, Needs, plain, registry};
pub use tune::{Chosen, Tune, kept_choices};
pub use weights::Progress;

#[cfg(test)]
mod variants_tests;
