//! AVX-512 with VNNI: the 16-bit matrix kernels, and attention where heads share keys.
//!
//! Formats are unpacked as on AVX2, 32 values at a time: on Zen 4 a 512-bit instruction takes as long as two of 256 bits, so
//! wider unpacking would gain nothing there. The other float kernels are AVX2's for the same reason. On Zen 5 it takes as long as one.

mod attend;
mod many;
mod one;
mod packed;
mod product;
mod quantize;

use super::avx2;
use crate::isa::{Avx2, Avx512};
use crate::pool::Tile;
use crate::product::Product;
use crate::scratch::Scratch;

pub(crate) use attend::attend;
pub(crate) use quantize::quantize;

/// The token. Kernels of this folder are picked only where it exists.
fn token() -> Avx512 {
    Avx512::new().expect("invariant: AVX-512 kernels are picked where AVX-512 is")
}

/// What AVX-512 includes.
fn avx2_token() -> Avx2 {
    Avx2::new().expect("invariant: AVX-512 includes AVX2")
}

/// One 16-bit matrix kernel per format.
macro_rules! formats {
    ($product:ident: $($name:ident),*) => {
        $(pub(crate) fn $name(p: &Product<'_>, scratch: &mut Scratch, out: &mut Tile<'_, f32>) {
            product::$product::<avx2::$name::Blocks>(token(), p, scratch, out);
        })*
    };
}

formats!(product: q8_0, q2_k, q3_k, iq4_nl, iq4_xs, mxfp4);
formats!(product_of_packed: q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k);
