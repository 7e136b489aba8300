//! NEON with `smmla`: the 16-bit matrix kernels for many tokens; one token is `dotprod`'s.
//!
//! Every public function here is safe: it asks for the [`I8mm`] token first, which proves that its instructions run.

mod tile;

use super::dotprod::{self, product};
use crate::isa::I8mm;
use crate::pool::Tile;
use crate::product::Product;
use crate::scratch::Scratch;

/// The token. Kernels of this folder are picked only where it exists.
fn token() -> I8mm {
    I8mm::new().expect("invariant: matrix multiply kernels are picked where they run")
}

/// One 16-bit matrix kernel per format.
macro_rules! formats {
    ($($name:ident),*) => {
        $(pub(crate) fn $name(p: &Product<'_>, scratch: &mut Scratch, out: &mut Tile<'_, f32>) {
            product::product::<dotprod::$name::Blocks, I8mm>(token(), p, scratch, out);
        })*
    };
}

formats!(q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, mxfp4);
