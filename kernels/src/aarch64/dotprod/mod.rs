//! NEON with `sdot`: the 16-bit matrix kernels.
//!
//! Every public function here is safe: it asks for the [`Dotprod`] token first, which proves that its instructions run.

pub(super) mod iq4_nl;
pub(super) mod iq4_xs;
pub(super) mod mxfp4;
pub(super) mod product;
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
mod tile;
pub(super) mod weights;

use crate::isa::Dotprod;
use crate::pool::Tile;
use crate::product::Product;
use crate::scratch::Scratch;

pub(crate) use quantize::quantize;

/// The token. Kernels of this folder are picked only where it exists.
fn token() -> Dotprod {
    Dotprod::new().expect("invariant: dot product kernels are picked where dot products are")
}

/// One 16-bit matrix kernel per format.
macro_rules! formats {
    ($($name:ident),*) => {
        $(pub(crate) fn $name(p: &Product<'_>, scratch: &mut Scratch, out: &mut Tile<'_, f32>) {
            product::product::<$name::Blocks, Dotprod>(token(), p, scratch, out);
        })*
    };
}

formats!(q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, mxfp4);
