//! The encoders compiled for NEON.

use super::token;
use crate::encode::{self, blocks};
use crate::isa::Neon;

macro_rules! encoders {
    ($($name:ident = $encoder:ident;)*) => {$(
        pub(crate) fn $name(x: &[f32], w: Option<&[f32]>, out: &mut [u8]) {
            #[target_feature(enable = "neon")]
            fn compiled(token: Neon, x: &[f32], w: Option<&[f32]>, out: &mut [u8]) {
                blocks::<Neon, encode::$encoder>(token, x, w, out);
            }
            let token = token();
            // SAFETY: the token proves that the instructions are there.
            unsafe { compiled(token, x, w, out) }
        }
    )*};
}

encode::each_encoder!(encoders);

#[cfg(test)]
mod tests {
    use crate::encode::{Encoder, encoders};
    use crate::isa::Isa;

    #[test]
    fn bytes_are_those_of_the_portable_encoders() {
        let mut state = 1u32;
        let mut uniform = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let mut x: Vec<f32> = (0..1024).map(|_| uniform()).collect();
        x.extend([0.0, -0.0, 1.0, -65504.0, 6e-8, 1e-42].into_iter().flat_map(|x| [x; 256]));
        x.extend((0..512).map(|i| if i % 40 == 0 { 3e4 * uniform() } else { 1e-3 * uniform() }));
        let importance: Vec<f32> = (0..256).map(|_| uniform().powi(2)).collect();
        let rows: Vec<&Encoder> = encoders().iter().filter(|row| row.isa == Isa::Neon).collect();
        assert_eq!(rows.len(), cchaha_plan::FORMATS.len());
        for row in rows {
            let portable = Encoder::of(row.format, Isa::Generic);
            for importance in [None, Some(importance.as_slice())] {
                let encode = |encoder: &Encoder| {
                    let mut bytes = vec![0; row.format.row_bytes(x.len()).expect("whole blocks")];
                    encoder.encode(&x, importance, &mut bytes).expect("the values can be stored");
                    bytes
                };
                let size = row.format.block_bytes();
                let (got, want) = (encode(row), encode(&portable));
                let differ = got.chunks(size).zip(want.chunks(size)).position(|(a, b)| a != b);
                assert_eq!(differ, None, "{}: block differs from the portable one", row.format);
            }
        }
    }
}
