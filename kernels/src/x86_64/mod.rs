//! Kernels for x86-64.
#![allow(unsafe_code)] // Vector intrinsics read raw pointers and may run only where the CPU has them.

pub(crate) mod avx2;
pub(crate) mod avx512;
pub(crate) mod peak;
