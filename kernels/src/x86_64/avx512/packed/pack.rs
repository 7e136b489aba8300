//! Packing; see `mod.rs`.

use std::arch::x86_64::*;

use super::super::super::avx2::runs::spread;
use super::super::super::avx2::spread::bytes;
use super::{Packed, ROWS, Shape, heads_of, plane_of};
use crate::isa::Avx512;

/// Packs whole rows of `cols` values, from the first or another multiple of four on, into as many bytes.
///
/// # Panics
/// Where the two do not have the same length, or that of rows.
pub(in super::super) fn pack<F: Packed>(_: Avx512, rows: &[u8], cols: usize, to: &mut [u8]) {
    let row_bytes = F::FORMAT.row_bytes(cols).expect("rows are whole blocks");
    assert!(rows.len() == to.len() && rows.len().is_multiple_of(row_bytes), "whole rows");
    let shape = Shape::of::<F>(cols);
    for (rows, to) in rows.chunks(ROWS * row_bytes).zip(to.chunks_mut(ROWS * row_bytes)) {
        if rows.len() < ROWS * row_bytes {
            to.copy_from_slice(rows);
            continue;
        }
        let row = |r: usize, at: usize| &rows[r * row_bytes..][..row_bytes][at..];
        let (steps, rest) = to.split_at_mut(shape.rest_at::<F>().0);
        let (whole, half) = steps.split_at_mut(shape.half_at::<F>());
        for pair in 0..2 {
            let two = |at: usize| [row(2 * pair, at).as_ptr(), row(2 * pair + 1, at).as_ptr()];
            // SAFETY: both rows have these steps, `to` has room for them, and the token proves the instructions.
            unsafe {
                for (s, to) in whole.chunks_exact_mut(ROWS * F::BYTES).enumerate() {
                    pack_two::<F, 8>(two(s * F::BYTES), pair, to.as_mut_ptr());
                }
                if shape.half {
                    pack_two::<F, 4>(two(shape.whole * F::BYTES), pair, half.as_mut_ptr());
                }
            }
        }
        let bytes = rest.len() / ROWS;
        for (r, to) in rest.chunks_exact_mut(bytes.max(1)).enumerate() {
            to.copy_from_slice(row(r, row_bytes - bytes));
        }
    }
}

/// Packs a step of `N` runs of two rows into the step at `to`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn pack_two<F: Packed, const N: usize>(rows: [*const u8; 2], pair: usize, to: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut vectors = [_mm512_setzero_si512(); 8];
        for (row, group) in rows.into_iter().enumerate() {
            F::pack_head::<N>(group, row, to.add(heads_of::<F, N>(pair)));
            let mut q = [_mm256_setzero_si256(); 8];
            // Spelled out: unpacking needs `b` as a constant.
            macro_rules! runs {
                ($($b:literal)*) => {{ $(if $b < N { q[$b] = bytes::<F>(group, $b); })* }};
            }
            runs!(0 1 2 3 4 5 6 7);
            spread::<N>(&mut q);
            for (vector, q) in vectors.iter_mut().zip(q) {
                *vector =
                    if row == 0 { _mm512_castsi256_si512(q) } else { _mm512_inserti64x4::<1>(*vector, q) };
            }
        }
        let place = |plane: usize| to.add(plane_of::<F, N>(pair, plane)).cast();
        let put = |plane: usize, v: __m512i| _mm512_storeu_si512(place(plane), v);
        // Words are shifted, but no bit that is kept leaves its byte.
        let bits = |v: __m512i, mask: i8| _mm512_and_si512(v, _mm512_set1_epi8(mask));
        let left = |v: __m512i, by: usize| _mm512_sllv_epi16(v, _mm512_set1_epi16(by as i16));
        for j in 0..N / 2 {
            put(j, _mm512_or_si512(bits(vectors[j], 15), left(bits(vectors[j + N / 2], 15), 4)));
        }
        // Of the bits above the nibble a vector has as many as a step of 256 columns has planes of them.
        let upper = F::BITS - 4;
        for plane in 0..upper {
            let shared = N == 4;
            let (first, start) = if shared { (0, 4 * pair) } else { (plane * (8 / upper), 0) };
            let mut all = _mm512_setzero_si512();
            for j in 0..N / upper {
                let v = bits(_mm512_srli_epi16::<4>(vectors[first + j]), (1 << upper) - 1);
                all = _mm512_or_si512(all, left(v, start + j * upper));
            }
            let plane = N / 2 + plane;
            if shared && pair == 1 {
                all = _mm512_or_si512(all, _mm512_loadu_si512(place(plane).cast_const()));
            }
            put(plane, all);
        }
    }
}
