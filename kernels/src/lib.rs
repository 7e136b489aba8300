//! The CPU twins of every op: the f64 oracle, which is the specification, and the kernels people run.
//!
//! [`Cpu`] is a [`cchaha_plan::Backend`]. It picks from [`registry`], one table of kernels in order of preference.
//! Float kernels are written once over eight-lane vectors (`generic/`, `simd.rs`) and bound per instruction set; matrix
//! kernels on quantized weights are one loop over a small trait per format (`x86_64/avx2/`, `aarch64/dotprod/`).

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod activations;
mod attention;
mod cpu;
pub mod encode;
pub mod formats;
mod gemm;
mod generic;
mod isa;
mod kv;
mod math;
mod oracle;
mod pool;
mod product;
mod registry;
mod roofs;
mod scratch;
mod simd;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use cpu::{Cpu, CpuOptions};
pub use gemm::{Matrix, gemm, gemm_here, vectorized};
pub use isa::{Avx2, Avx512, Dotprod, I8mm, Isa, Neon};
pub use oracle::{Oracle, OracleRunner};
pub use pool::{Pool, physical_cores};
pub use registry::{Kernel, registry};
pub use roofs::{Roofs, Work, fma_ops_per_s};
