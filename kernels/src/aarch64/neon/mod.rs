//! NEON: bindings of the float kernels.
//!
//! Every public function here is safe: it asks for the [`Neon`] token first, which proves that its instructions run. All of
//! AArch64 has them, so plain loops are compiled to them without being told.

pub(crate) mod encode;
mod lanes;

use cchaha_plan::Activation;

use crate::gemm::Matrix;
use crate::generic;
use crate::generic::attend::Attend;
use crate::generic::elementwise::Input;
use crate::generic::norm::NormArgs;
use crate::generic::rope::Angles;
use crate::isa::Neon;
use crate::pool::Tile;
use crate::product::Product;
use crate::scratch::Scratch;

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

bind!(product = generic::matmul::product, p: &Product<'_>, scratch: &mut Scratch, out: &mut Tile<'_, f32>);
bind!(attend = generic::attend::attend, a: &Attend<'_>, scratch: &mut Scratch, out: &mut Tile<'_, f32>);
bind!(norm = generic::norm::norm, args: &NormArgs<'_>, x: Input<'_>, out: &mut [f32]);
bind!(rope = generic::rope::rope, angles: Angles<'_>, head_dim: usize, x: &mut [f32]);
bind!(
    activate = generic::elementwise::activate,
    kind: Activation,
    x: Input<'_>,
    up: Option<Input<'_>>,
    out: &mut [f32]
);
bind!(pack_cols = generic::gemm::pack_cols, b: Matrix<'_>, panel: usize, out: &mut [f32]);
bind!(
    gemm_tile = generic::gemm::tile,
    a: Matrix<'_>,
    b: &[f32],
    accumulate: bool,
    packed: &mut Vec<f32>,
    out: &mut Tile<'_, f32>
);
bind!(add = generic::elementwise::add, a: Input<'_>, b: Input<'_>, out: &mut [f32]);
bind!(scale = generic::elementwise::scale, factor: f32, x: &mut [f32]);
bind!(softcap = generic::elementwise::softcap, cap: f32, x: &mut [f32]);
