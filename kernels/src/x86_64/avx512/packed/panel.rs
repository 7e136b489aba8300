//! Panels from packed rows: what `avx2/panel.rs` makes of rows as stored, by hardly more than copying.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::super::avx2::panel::{At, LANES, Room, unpack_end, unpack_row};
use super::super::many::Unsigned;
use super::{Packed, ROWS, Shape, heads_of, step_bytes, vector};
use crate::product::Product;
use crate::scratch::Scratch;

/// Unpacks `rows`, at most [`crate::scratch::Panel::ROWS`], which begin with a multiple of four and end with one or with the matrix.
///
/// # Safety
/// AVX-512, and all of `p.rows` are there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(in super::super) unsafe fn unpack_packed<F: Packed>(
    p: &Product<'_>,
    rows: Range<usize>,
    scratch: &mut Scratch,
) -> Room<Unsigned> {
    let room = Room::new::<F>(p.cols, rows.len(), scratch);
    let shape = Shape::of::<F>(p.cols);
    let (rest, rest_bytes) = shape.rest_at::<F>();
    for first in rows.clone().step_by(ROWS) {
        // SAFETY: the caller's promise; the panel has room for these rows.
        unsafe {
            let four = p.weights.as_ptr().add(first * p.row_bytes);
            if first + ROWS > p.rows {
                for r in 0..p.rows - first {
                    let at = room.row(first + r - rows.start);
                    unpack_row::<F, Unsigned>(four.add(r * p.row_bytes), p.cols, at);
                }
                continue;
            }
            for pair in 0..2 {
                let mut at = room.row(first + 2 * pair - rows.start);
                for s in 0..shape.whole {
                    unpack_two::<F, 8>(four.add(s * step_bytes::<F, 8>()), pair, &mut at);
                }
                if shape.half {
                    unpack_two::<F, 4>(four.add(shape.half_at::<F>()), pair, &mut at);
                }
                let rest = four.add(rest + 2 * pair * rest_bytes);
                let second = At { lines: at.lines.add(4 * LANES), sides: at.sides.add(LANES) };
                unpack_end::<F, Unsigned>(rest, shape.rest, at);
                unpack_end::<F, Unsigned>(rest.add(rest_bytes), shape.rest, second);
            }
        }
    }
    room
}

/// Two rows of a step stand side by side here and there.
#[inline(always)]
unsafe fn unpack_two<F: Packed, const N: usize>(step: *const u8, pair: usize, at: &mut At) {
    // SAFETY: the caller's promise.
    unsafe {
        let heads = F::heads::<N>(step.add(heads_of::<F, N>(pair)));
        for scale in &heads.scale[..F::SCALES] {
            _mm512_storeu_ps(at.next_side::<Unsigned>(), *scale);
        }
        if F::LANE_OFFSETS > 0 {
            _mm512_storeu_ps(at.next_side::<Unsigned>(), heads.offset);
        }
        // Spelled out, so that shifts are constants.
        macro_rules! vectors {
            ($($j:literal)*) => {{ $(
                if $j < N {
                    let vector = vector::<F, N>(step, pair, $j);
                    _mm512_storeu_si512(at.next_line::<Unsigned>().cast(), vector);
                }
            )* }};
        }
        vectors!(0 1 2 3 4 5 6 7);
    }
}
