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

encode::each_encoder!(encoders);
