//! Panels from packed rows: what `avx2/panel.rs` makes of rows as stored, by hardly more than copying.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::panel::{At, Form, Room, unpack_end, unpack_row};
use super::{Packed, ROWS, Shape, heads_of, step_bytes, vector};
use crate::product::Product;
use crate::scratch::Scratch;

/// Unpacks `rows`, at most [`crate::scratch::Panel::ROWS`], which begin with a multiple of four and end with one or with the matrix.
///
/// # Safety
/// AVX2, FMA and F16C, and all of `p.rows` are there.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) unsafe fn unpack_packed<F: Packed, P: Form>(
    p: &Product<'_>,
    rows: Range<usize>,
    scratch: &mut Scratch,
) -> Room<P> {
    let room = Room::new::<F>(p.cols, rows.len(), scratch);
    let shape = Shape::of::<F>(p.cols);
    let (rest, rest_bytes) = shape.rest_at::<F>();
    for first in rows.clone().step_by(ROWS) {
        // SAFETY: the caller's promise; the panel has room for these rows.
        unsafe {
            let four = p.weights.as_ptr().add(first * p.row_bytes);
            for r in 0..ROWS.min(p.rows - first) {
                let mut at = room.row(first + r - rows.start);
                if first + ROWS > p.rows {
                    unpack_row::<F, P>(four.add(r * p.row_bytes), p.cols, at);
                    continue;
                }
                for s in 0..shape.whole {
                    unpack_step::<F, P, 8>(four.add(s * step_bytes::<F, 8>()), r, &mut at);
                }
                if shape.half {
                    unpack_step::<F, P, 4>(four.add(shape.half_at::<F>()), r, &mut at);
                }
                unpack_end::<F, P>(four.add(rest + r * rest_bytes), shape.rest, at);
            }
        }
    }
    room
}

/// Unpacks a step of row `r`.
#[inline(always)]
unsafe fn unpack_step<F: Packed, P: Form, const N: usize>(step: *const u8, r: usize, at: &mut At) {
    // SAFETY: the caller's promise.
    unsafe {
        let head = F::unpack_head::<N>(step.add(heads_of::<F, N>(r / 2)), r % 2);
        P::put_sides::<F, N>(&head, at);
        // Spelled out, so that shifts are constants.
        macro_rules! vectors {
            ($($j:literal)*) => {{ $(
                if $j < N {
                    let vector = match r {
                        0 => vector::<F, N>(step, 0, $j),
                        1 => vector::<F, N>(step, 1, $j),
                        2 => vector::<F, N>(step, 2, $j),
                        _ => vector::<F, N>(step, 3, $j),
                    };
                    _mm256_store_si256(at.next_line::<P>().cast(), vector);
                }
            )* }};
        }
        vectors!(0 1 2 3 4 5 6 7);
    }
}
