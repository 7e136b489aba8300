//! TODO header
use super::super::avx2::weights::Weights;
use super::many::many;
use super::one::one;
use crate::activations::{GROUP, Group, Lines};
use crate::isa::Avx512;
use crate::pool::Tile;
use crate::product::Product;
use crate::scratch::Scratch;

/// Activations, `[token][group]`.
#[derive(Clone, Copy)]
pub(super) struct X<'a> {
    pub(super) lines: &'a [Lines],
    pub(super) groups: &'a [Group],
}

/// The outputs of one tile: columns of the tile are rows of the weight.
pub(super) fn product<F: Weights>(_: Avx512, p: &Product<'_>, scratch: &mut Scratch, out: &mut Tile<'_, f32>) {
    let per_token = p.cols.div_ceil(GROUP);
    assert_eq!(p.format, F::FORMAT, "a kernel gets its own format");
    assert_eq!(p.format.row_bytes(p.cols), Some(p.row_bytes), "rows are whole blocks");
    assert!(p.weights.len() >= p.rows * p.row_bytes && out.cols().end <= p.rows, "all rows are there");
    assert_eq!(p.quantized.per_token, per_token, "activations have the weight's columns");
    let groups = p.tokens * per_token;
    let x = X { lines: &p.quantized.lines[..groups], groups: &p.quantized.groups[..groups] };
    // SAFETY: the token proves the instructions; the lengths were checked.
    unsafe { if p.tokens == 1 { one::<F>(p, x, out) } else { many::<F>(p, x, scratch, out) } }
}

/// The steps of `runs` (at most 8) runs of a group: where each begins, and how many it has.
pub(super) fn steps(runs: usize) -> impl Iterator<Item = (usize, usize)> {
    [8, 4, 2, 1].into_iter().filter(move |n| runs & n != 0).scan(0, |first, n| {
        let step = (*first, n);
        *first += n;
        Some(step)
    })
}
