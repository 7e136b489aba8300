//! The float kernels: each algorithm once, over [`Simd`](crate::simd::Simd). `generic-*` rows of the registry run
//! them on plain arrays; an instruction set binds the same functions to its registers.

pub(crate) mod attend;
pub(crate) mod elementwise;
pub(crate) mod fold;
pub(crate) mod gemm;
pub(crate) mod matmul;
pub(crate) mod norm;
pub(crate) mod rope;
pub(crate) mod rows;
pub(crate) mod select;

/// Calls `$bind!(name = kernel, argument: type, ...)` for every float kernel that an instruction set binds.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! each_float_kernel {
    ($bind:ident) => {
        $bind!(product = $crate::generic::matmul::product, p: &$crate::product::Product<'_>, scratch: &mut $crate::scratch::Scratch, out: &mut $crate::pool::Tile<'_, f32>);
        $bind!(
            attend = $crate::generic::attend::attend,
            a: &$crate::attention::Attend<'_>,
            split: &$crate::attention::Split<'_>,
            scratch: &mut [f32],
            sums: &mut $crate::attention::Sums<'_>
        );
        $bind!(
            select = $crate::generic::select::select,
            a: &$crate::attention::Attend<'_>,
            at: (usize, usize),
            pages: usize,
            scratch: &mut $crate::scratch::Scratch,
            bits: &mut [u64]
        );
        $bind!(norm = $crate::generic::norm::norm, args: &$crate::generic::norm::NormArgs<'_>, x: $crate::generic::elementwise::Input<'_>, out: &mut [f32]);
        $bind!(rope = $crate::generic::rope::rope, angles: $crate::generic::rope::Angles<'_>, head_dim: usize, x: &mut [f32]);
        $bind!(
            activate = $crate::generic::elementwise::activate,
            kind: cchaha_plan::Activation,
            x: $crate::generic::elementwise::Input<'_>,
            up: Option<$crate::generic::elementwise::Input<'_>>,
            out: &mut [f32]
        );
        $bind!(pack_cols = $crate::generic::gemm::pack_cols, b: $crate::gemm::Matrix<'_>, panel: usize, out: &mut [f32]);
        $bind!(
            gemm_tile = $crate::generic::gemm::tile,
            a: $crate::gemm::Matrix<'_>,
            b: &[f32],
            accumulate: bool,
            packed: &mut Vec<f32>,
            out: &mut $crate::pool::Tile<'_, f32>
        );
        $bind!(add = $crate::generic::elementwise::add, a: $crate::generic::elementwise::Input<'_>, b: $crate::generic::elementwise::Input<'_>, out: &mut [f32]);
        $bind!(scale = $crate::generic::elementwise::scale, factor: f32, x: &mut [f32]);
        $bind!(softcap = $crate::generic::elementwise::softcap, cap: f32, x: &mut [f32]);
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use each_float_kernel;
