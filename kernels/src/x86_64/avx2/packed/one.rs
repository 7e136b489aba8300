//! One token against packed rows; see `mod.rs` and `product.rs`.

use std::arch::x86_64::*;

use super::super::one::{One, Sums, end, zeros};
use super::super::product::{X, scaled};
use super::super::runs::sum;
use super::super::weights::ahead;
use super::{Packed, ROWS, Shape, heads_of, step_bytes, vector};
use crate::activations::GROUP;
use crate::pool::Tile;
use crate::product::Product;

/// # Safety
/// AVX2, FMA and F16C; rows and groups were checked, and the tile's rows begin with a multiple of four and end with one or with the matrix.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) unsafe fn one<F: Packed>(
    p: &Product<'_>,
    x: X<'_>,
    token: usize,
    out: &mut Tile<'_, f32>,
) {
    let shape = Shape::of::<F>(p.cols);
    let (rest, rest_bytes) = shape.rest_at::<F>();
    for first in out.cols().step_by(ROWS) {
        // SAFETY: the caller's promise.
        unsafe {
            let four = p.weights.as_ptr().add(first * p.row_bytes);
            let mut totals = [_mm256_setzero_ps(); ROWS];
            if first + ROWS > p.rows {
                for (r, row) in (first..p.rows).enumerate() {
                    let w = four.add(r * p.row_bytes);
                    p.put(out, token, row, sum(super::super::one::row::<F>(w, p.cols, x)));
                }
                continue;
            }
            for s in 0..shape.whole {
                step::<F, 8>(four.add(s * step_bytes::<F, 8>()), x, s, &mut totals);
            }
            if shape.half {
                step::<F, 4>(four.add(shape.half_at::<F>()), x, shape.whole, &mut totals);
            }
            for (r, total) in totals.iter().enumerate() {
                let w = four.add(rest + r * rest_bytes);
                let total = end::<F>(w, x, (p.cols / GROUP, shape.first()), shape.rest, *total);
                p.put(out, token, first + r, sum(total));
            }
        }
    }
}

/// Adds a step of `N` runs, with which group `g` begins.
#[inline(always)]
unsafe fn step<F: Packed, const N: usize>(w: *const u8, x: X<'_>, g: usize, totals: &mut [__m256; ROWS]) {
    // SAFETY: the caller's promise.
    unsafe {
        ahead(w, step_bytes::<F, N>());
        let x = One::of(x, g, 0);
        let zero = i32::from(F::ZERO);
        let zeros = if N < 8 && zero != 0 { zeros::<F, N>(&x) } else { _mm256_setzero_si256() };
        // Spelled out, so that shifts are constants.
        macro_rules! row {
            ($r:literal: $($j:literal)*) => {{
                let mut sums = Sums::new();
                $(if $j < N { sums.add::<F, N>(vector::<F, N>(w, $r, $j), &x, $j); })*
                let sides = F::sides::<N>(w.add(heads_of::<F, N>($r / 2)), $r % 2);
                totals[$r] = scaled::<F, N>(sums.dots, sides, (x.group, 0), (zero, zeros), totals[$r]);
            }};
        }
        row!(0: 0 1 2 3 4 5 6 7);
        row!(1: 0 1 2 3 4 5 6 7);
        row!(2: 0 1 2 3 4 5 6 7);
        row!(3: 0 1 2 3 4 5 6 7);
    }
}
