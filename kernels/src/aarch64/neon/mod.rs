//! NEON: bindings of the float kernels.
//!
//! Every public function here is safe: it asks for the [`Neon`] token first, which proves that its instructions run. All of
//! AArch64 has them, so plain loops are compiled to them without being told.

pub(crate) mod encode;
mod lanes;

use crate::generic;
use crate::isa::Neon;

pub(super) use lanes::widened;

/// The token. Kernels of this folder are picked only where it exists.
fn token() -> Neon {
    Neon::new().expect("invariant: NEON kernels are picked where NEON is")
}

/// Compiles a float kernel for NEON and wraps it into a safe function.
macro_rules! bind {
    ($name:ident = $kernel:path, $($arg:ident: $ty:ty),*) => {
        pub(crate) fn $name($($arg: $ty),*) {
            #[target_feature(enable = "neon")]
            fn compiled(token: Neon, $($arg: $ty),*) {
                $kernel(token, $($arg),*);
            }
            let token = token();
            // SAFETY: the token proves that the instructions are there.
            unsafe { compiled(token, $($arg),*) }
        }
    };
}

generic::each_float_kernel!(bind);
