//! AVX2, FMA and F16C: bindings of the float kernels, and the 16-bit matrix kernels.
//!
//! Every public function here is safe: it asks for the [`Avx2`] token first, which proves that its instructions run.

mod coarse;
pub(crate) mod encode;
mod fine;
pub(super) mod iq4_nl;
pub(super) mod iq4_xs;
mod lanes;
pub(super) mod mxfp4;
mod one;
pub(super) mod packed;
pub(super) mod panel;
mod product;
pub(super) mod q2_k;
pub(super) mod q3_k;
pub(super) mod q4_0;
pub(super) mod q4_1;
pub(super) mod q4_k;
pub(super) mod q5_0;
pub(super) mod q5_1;
pub(super) mod q5_k;
pub(super) mod q6_k;
pub(super) mod q8_0;
mod quantize;
pub(super) mod quantize_coarse;
pub(super) mod runs;
pub(super) mod spread;
pub(super) mod weights;

use crate::generic;
use crate::isa::Avx2;
use crate::pool::Tile;
use crate::product::Product;
use crate::scratch::Scratch;

pub(crate) use quantize::quantize;
pub(super) use quantize::{by_halves, quantize_runs};
pub(crate) use quantize_coarse::quantize_coarse;

/// The token. Kernels of this folder are picked only where it exists.
fn token() -> Avx2 {
    Avx2::new().expect("invariant: AVX2 kernels are picked where AVX2 is")
}

/// Compiles a float kernel for AVX2 and wraps it into a safe function.
macro_rules! bind {
    ($name:ident = $kernel:path, $($arg:ident: $ty:ty),*) => {
        pub(crate) fn $name($($arg: $ty),*) {
            #[target_feature(enable = "avx2,fma,f16c")]
            fn compiled(token: Avx2, $($arg: $ty),*) {
                $kernel(token, $($arg),*);
            }
            let token = token();
            // SAFETY: the token proves that the instructions are there.
            unsafe { compiled(token, $($arg),*) }
        }
    };
}

generic::each_float_kernel!(bind);

/// Runs `f` compiled for AVX2, as far as what it calls is inlined.
#[inline]
pub(crate) fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn compiled<R>(_: Avx2, f: impl FnOnce() -> R) -> R {
        f()
    }
    let token = token();
    // SAFETY: the token proves that the instructions are there.
    unsafe { compiled(token, f) }
}

/// One 16-bit matrix kernel per format.
macro_rules! formats {
    ($product:ident: $($name:ident),*) => {
        $(pub(crate) fn $name(p: &Product<'_>, scratch: &mut Scratch, out: &mut Tile<'_, f32>) {
            product::$product::<$name::Blocks>(token(), p, scratch, out);
        })*
    };
}

/// The same, and what packs rows of the format; see [`crate::registry::Pack`].
macro_rules! packed {
    ($($name:ident),*) => {
        formats!(product_of_packed: $($name),*);

        pub(crate) mod pack {
            use super::{packed, token};

            $(pub(crate) fn $name(rows: &[u8], cols: usize, to: &mut [u8]) {
                packed::pack::<super::$name::Blocks>(token(), rows, cols, to);
            })*
        }
    };
}

formats!(product: q8_0, q2_k, q3_k, iq4_nl, iq4_xs, mxfp4);
packed!(q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k);
