//! Eight f32 lanes in two registers.

use std::arch::aarch64::*;

use crate::isa::Neon;
use crate::simd::{LANES, Simd};

/// One intrinsic on both registers; `self` is the proof that it may run.
macro_rules! op {
    ($name:ident($($arg:ident),*) => $body:expr) => {
        #[inline(always)]
        fn $name(self, $($arg: Self::V),*) -> Self::V {
            // SAFETY: the token proves that the instructions are there.
            std::array::from_fn(|i| unsafe {
                $(let $arg = $arg[i];)*
                $body
            })
        }
    };
}

impl Simd for Neon {
    type V = [float32x4_t; 2];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: the token proves that the instructions are there.
        [unsafe { vdupq_n_f32(x) }; 2]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::V {
        // SAFETY: as above, and the array has eight values.
        unsafe { [vld1q_f32(x.as_ptr()), vld1q_f32(x.as_ptr().add(4))] }
    }
    #[inline(always)]
    fn store(self, v: Self::V, out: &mut [f32; LANES]) {
        // SAFETY: as above.
        unsafe {
            vst1q_f32(out.as_mut_ptr(), v[0]);
            vst1q_f32(out.as_mut_ptr().add(4), v[1]);
        }
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> Self::V {
        // SAFETY: as above; eight halves are one register.
        unsafe { widened(vld1q_u16(x.as_ptr())) }
    }
    op!(add(a, b) => vaddq_f32(a, b));
    op!(sub(a, b) => vsubq_f32(a, b));
    op!(mul(a, b) => vmulq_f32(a, b));
    op!(div(a, b) => vdivq_f32(a, b));
    op!(fma(a, b, c) => vfmaq_f32(c, a, b));
    // Not fmin and fmax, which give NaN, nor fminnm and fmaxnm, which give the number: the second where either is NaN.
    op!(min(a, b) => vbslq_f32(vcltq_f32(a, b), a, b));
    op!(max(a, b) => vbslq_f32(vcgtq_f32(a, b), a, b));
    op!(round(a) => vrndnq_f32(a));
    op!(exp2_whole(n) => {
        let exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
        vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
    });
    op!(select_lt(a, b, yes, no) => vbslq_f32(vcltq_f32(a, b), yes, no));

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        // SAFETY: the token proves that the instructions are there.
        unsafe {
            let four = vaddq_f32(v[0], v[1]);
            vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
        }
    }
    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        // SAFETY: as above.
        unsafe { vmaxnmvq_f32(vmaxnmq_f32(v[0], v[1])) }
    }
}

/// Eight f16 as f32.
///
/// # Safety
/// NEON.
#[inline(always)]
pub(in crate::aarch64) unsafe fn widened(bits: uint16x8_t) -> [float32x4_t; 2] {
    // SAFETY: the caller has NEON.
    unsafe {
        let bits = vreinterpretq_f16_u16(bits);
        [vcvt_f32_f16(vget_low_f16(bits)), vcvt_high_f32_f16(bits)]
    }
}
