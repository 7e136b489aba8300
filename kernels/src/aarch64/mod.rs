//! Kernels for AArch64.
//!
//! | folder | instructions | machines |
//! |---|---|---|
//! | `neon` | the baseline | all |
//! | `dotprod` | `sdot`: sixteen 8-bit products | Apple A13 and M1, Cortex-A76, Neoverse N1 on |
//! | `i8mm` | `smmla`: thirty-two 8-bit products | Apple A15 and M2, Cortex-A510, -A710 and -X2, Neoverse N2 and V1 on |
//!
//! From Arm's manuals of the cores; for Apple from LLVM's list of processors (`AArch64Processors.td`): `apple-a13` is an Armv8.4,
//! which includes dotprod, and `apple-a15`, as the M2 is one, names i8mm first.
#![allow(unsafe_code)] // Vector intrinsics read raw pointers and may run only where the CPU has them.

pub(crate) mod dotprod;
pub(crate) mod i8mm;
pub(crate) mod neon;
pub(crate) mod peak;
