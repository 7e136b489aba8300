//! The encoders compiled for AVX2.

use super::token;
use crate::encode::{self, blocks};
use crate::isa::Avx2;

macro_rules! encoders {
    ($($name:ident = $encoder:ident;)*) => {$(
        pub(crate) fn $name(x: &[f32], w: Option<&[f32]>, out: &mut [u8]) {
            #[target_feature(enable = "avx2,fma,f16c")]
            fn compiled(token: Avx2, x: &[f32], w: Option<&[f32]>, out: &mut [u8]) {
                blocks::<Avx2, encode::$encoder>(token, x, w, out);
            }
            let token = token();
            // SAFETY: the token proves that the instructions are there.
            unsafe { compiled(token, x, w, out) }
        }
    )*};
}

encoders! {
    f32 = F32;
    f16 = F16;
    bf16 = Bf16;
    q4_0 = Q4_0;
    q4_1 = Q4_1;
    q5_0 = Q5_0;
    q5_1 = Q5_1;
    q8_0 = Q8_0;
    q2_k = Q2K;
    q3_k = Q3K;
    q4_k = Q4K;
    q5_k = Q5K;
    q6_k = Q6K;
    iq4_nl = Iq4Nl;
    iq4_xs = Iq4Xs;
    mxfp4 = Mxfp4;
}
