//! The float kernels: each algorithm once, over [`Simd`](crate::simd::Simd). `generic-*` rows of the registry run
//! them on plain arrays; an instruction set binds the same functions to its registers.

pub(crate) mod attend;
pub(crate) mod elementwise;
pub(crate) mod gemm;
pub(crate) mod matmul;
pub(crate) mod norm;
pub(crate) mod rope;
pub(crate) mod rows;
pub(crate) mod select;
