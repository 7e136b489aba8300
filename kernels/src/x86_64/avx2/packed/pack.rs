//! Packing; see `mod.rs`.

use std::arch::x86_64::*;

use super::super::runs::spread;
use super::{Packed, ROWS, Shape, heads_of, plane_of};
use crate::isa::Avx2;

/// Packs whole rows of `cols` values, from the first or another multiple of four on, into as many bytes.
///
/// # Panics
/// Where the two do not have the same length, or that of rows.
pub(in crate::x86_64) fn pack<F: Packed>(_: Avx2, rows: &[u8], cols: usize, to: &mut [u8]) {
    let row_bytes = F::FORMAT.row_bytes(cols).expect("rows are whole blocks");
    assert!(rows.len() == to.len() && rows.len().is_multiple_of(row_bytes), "whole rows");
    let shape = Shape::of::<F>(cols);
    for (rows, to) in rows.chunks(ROWS * row_bytes).zip(to.chunks_mut(ROWS * row_bytes)) {
        if rows.len() < ROWS * row_bytes {
            to.copy_from_slice(rows);
            continue;
        }
        let (steps, rest) = to.split_at_mut(shape.rest_at::<F>().0);
        let (whole, half) = steps.split_at_mut(shape.half_at::<F>());
        let bytes = rest.len() / ROWS;
        for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
            // SAFETY: the row has these steps, `to` has room for them, and the token proves the instructions.
            unsafe {
                for (s, to) in whole.chunks_exact_mut(ROWS * F::BYTES).enumerate() {
                    pack_row::<F, 8>(row[s * F::BYTES..].as_ptr(), r, to.as_mut_ptr());
                }
                if shape.half {
                    pack_row::<F, 4>(row[shape.whole * F::BYTES..].as_ptr(), r, half.as_mut_ptr());
                }
            }
            rest[r * bytes..][..bytes].copy_from_slice(&row[row_bytes - bytes..]);
        }
    }
}

/// Packs a step of `N` runs of row `r`, after those before it, into the step at `to`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn pack_row<F: Packed, const N: usize>(group: *const u8, r: usize, to: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        let (pair, row) = (r / 2, r % 2);
        F::pack_head::<N>(group, row, to.add(heads_of::<F, N>(pair)));
        let mut q = [_mm256_setzero_si256(); 8];
        // Spelled out: unpacking needs `b` as a constant.
        macro_rules! runs {
            ($($b:literal)*) => {{ $(if $b < N { q[$b] = F::load(group, $b); })* }};
        }
        runs!(0 1 2 3 4 5 6 7);
        spread::<N>(&mut q);
        let place = |plane: usize| to.add(plane_of::<F, N>(pair, plane) + 32 * row).cast::<__m256i>();
        for j in 0..N / 2 {
            let nibbles = _mm256_or_si256(bits(q[j], 15), left(bits(q[j + N / 2], 15), 4));
            _mm256_storeu_si256(place(j), nibbles);
        }
        // Of the bits above the nibble a vector has as many as a step of 256 columns has planes of them.
        let upper = F::BITS - 4;
        for plane in 0..upper {
            let shared = N == 4;
            let (first, start) = if shared { (0, 4 * pair) } else { (plane * (8 / upper), 0) };
            let place = place(N / 2 + plane);
            let mut all = if shared && pair == 1 {
                _mm256_loadu_si256(place.cast_const())
            } else {
                _mm256_setzero_si256()
            };
            for j in 0..N / upper {
                let v = bits(_mm256_srli_epi16::<4>(q[first + j]), (1 << upper) - 1);
                all = _mm256_or_si256(all, left(v, start + j * upper));
            }
            _mm256_storeu_si256(place, all);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn bits(v: __m256i, mask: i8) -> __m256i {
    _mm256_and_si256(v, _mm256_set1_epi8(mask))
}

/// Words are shifted, but no bit that is kept leaves its byte.
#[inline]
#[target_feature(enable = "avx2")]
fn left(v: __m256i, by: usize) -> __m256i {
    _mm256_sll_epi16(v, _mm_cvtsi32_si128(by as i32))
}
