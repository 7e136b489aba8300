//! Formats whose values stand alone: each is rounded to the nearest, ties to even.

use cchaha_plan::Format;

use super::BlockEncoder;
use crate::simd::Simd;

/// IEEE 754 binary32.
pub(crate) struct F32;

impl BlockEncoder for F32 {
    const FORMAT: Format = Format::F32;

    #[inline(always)]
    fn block<S: Simd>(_: S, x: &[f32], _: &[f32], out: &mut [u8]) {
        out.copy_from_slice(&x[0].to_le_bytes());
    }
}

/// IEEE 754 binary16.
pub(crate) struct F16;

impl BlockEncoder for F16 {
    const FORMAT: Format = Format::F16;

    #[inline(always)]
    fn block<S: Simd>(_: S, x: &[f32], _: &[f32], out: &mut [u8]) {
        out.copy_from_slice(&half::f16::from_f32(x[0]).to_le_bytes());
    }
}

/// The upper half of a binary32.
pub(crate) struct Bf16;

impl BlockEncoder for Bf16 {
    const FORMAT: Format = Format::BF16;

    #[inline(always)]
    fn block<S: Simd>(_: S, x: &[f32], _: &[f32], out: &mut [u8]) {
        out.copy_from_slice(&half::bf16::from_f32(x[0]).to_le_bytes());
    }
}
