//! One token against packed rows; see `mod.rs` and `product.rs`.
//!
//! Four rows and not two: on Zen 4 a load of 512 bits takes a cycle, and two rows, with 16 of activations for 4 of weights, were bound by that
//! (Q4_K 22.6 GB/s in cache, one thread).

use std::arch::x86_64::*;

use super::super::super::avx2::runs::sum;
use super::super::super::avx2::spread::lane_sums;
use super::super::super::avx2::weights::ahead;
use super::super::many::both;
use super::super::one::{end, row};
use super::super::product::X;
use super::{Heads, Packed, ROWS, Shape, heads_of, step_bytes, vector};
use crate::activations::{GROUP, Group};
use crate::pool::Tile;
use crate::product::Product;

/// # Safety
/// AVX-512; rows and groups were checked, and the tile's rows begin with a multiple of four and end with one or with the matrix.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(in super::super) unsafe fn one<F: Packed>(p: &Product<'_>, x: X<'_>, out: &mut Tile<'_, f32>) {
    let shape = Shape::of::<F>(p.cols);
    let (rest, rest_bytes) = shape.rest_at::<F>();
    let bytes = |s: usize| x.halves.map(|half| half.as_ptr().cast::<u8>().wrapping_add(GROUP * s));
    let zeros = if shape.half { half_zeros::<F>(bytes(shape.whole)) } else { _mm512_setzero_si512() };
    for first in out.cols().step_by(ROWS) {
        // SAFETY: the caller's promise.
        unsafe {
            let four = p.weights.as_ptr().add(first * p.row_bytes);
            if first + ROWS > p.rows {
                for r in 0..p.rows - first {
                    p.put(out, 0, first + r, row::<F>(four.add(r * p.row_bytes), p.cols, x));
                }
                continue;
            }
            let mut totals = [_mm512_setzero_ps(); 2];
            for (s, group) in x.groups[..shape.whole].iter().enumerate() {
                step::<F, 8>(four.add(s * step_bytes::<F, 8>()), bytes(s), group, zeros, &mut totals);
            }
            if shape.half {
                let w = four.add(shape.half_at::<F>());
                step::<F, 4>(w, bytes(shape.whole), &x.groups[shape.whole], zeros, &mut totals);
            }
            for r in 0..ROWS {
                let both = totals[r / 2];
                let mut total =
                    if r % 2 == 0 { _mm512_castps512_ps256(both) } else { _mm512_extractf32x8_ps::<1>(both) };
                if shape.rest != 0 {
                    let w = four.add(rest + r * rest_bytes);
                    total = end::<F>(w, &x.groups[shape.whole], (shape.first(), shape.rest), total);
                }
                p.put(out, 0, first + r, sum(total));
            }
        }
    }
}

/// What the bytes' zero adds to the sums of a step of 128 columns, whose lanes hold parts of runs, of which there are no sums.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn half_zeros<F: Packed>([upper, lower]: [*const u8; 2]) -> __m512i {
    let zero = _mm512_set1_epi8(F::BYTE_ZERO as i8);
    let sum = |mut sum: __m512i, x: *const u8| {
        for j in 0..4 {
            // SAFETY: a group has this vector, which is aligned.
            let x = unsafe { _mm256_load_si256(x.add(32 * j).cast()) };
            sum = _mm512_dpbusd_epi32(sum, zero, _mm512_broadcast_i64x4(x));
        }
        sum
    };
    sum(_mm512_slli_epi32::<8>(sum(_mm512_setzero_si512(), upper)), lower)
}

/// Adds a step of `N` runs; `x` are the upper and the lower bytes of its activations, `zeros` those of [`half_zeros`].
#[inline(always)]
unsafe fn step<F: Packed, const N: usize>(
    w: *const u8,
    x: [*const u8; 2],
    group: &Group,
    zeros: __m512i,
    totals: &mut [__m512; 2],
) {
    // SAFETY: the caller's promise.
    unsafe {
        ahead(w, step_bytes::<F, N>());
        // Of columns 0 to 15 and 16 to 31 of every run, of two rows and two, times upper and lower bytes.
        let mut sums = [[[_mm512_setzero_si512(); 2]; 2]; 2];
        macro_rules! vectors {
            ($($j:literal)*) => {{ $(if $j < N {
                let values = x.map(|x| _mm512_broadcast_i64x4(_mm256_load_si256(x.add(32 * $j).cast())));
                for pair in 0..2 {
                    let q = vector::<F, N>(w, pair, $j);
                    for plane in 0..2 {
                        let sum = &mut sums[$j / 4][pair][plane];
                        *sum = _mm512_dpbusd_epi32(*sum, q, values[plane]);
                    }
                }
            })* }};
        }
        vectors!(0 1 2 3 4 5 6 7);
        for pair in 0..2 {
            let halves = [sums[0][pair], sums[1][pair]]
                .map(|[upper, lower]| _mm512_add_epi32(_mm512_slli_epi32::<8>(upper), lower));
            let heads = F::heads::<N>(w.add(heads_of::<F, N>(pair)));
            totals[pair] = scaled::<F, N>(halves, heads, group, zeros, totals[pair]);
        }
    }
}

/// Adds the scaled sums of two rows.
#[inline(always)]
unsafe fn scaled<F: Packed, const N: usize>(
    [first, second]: [__m512i; 2],
    heads: Heads,
    group: &Group,
    zeros: __m512i,
    mut total: __m512,
) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let unit = _mm512_set1_ps(group.scales[0]);
        if F::HALVES {
            for (h, dot) in [first, second].into_iter().enumerate() {
                let dot = around::<F>(dot, group.sums16.as_ptr().add(8 * h));
                let value = _mm512_mul_ps(_mm512_cvtepi32_ps(dot), heads.scale[h]);
                total = _mm512_fmadd_ps(value, unit, total);
            }
            return total;
        }
        let dot = _mm512_add_epi32(first, second);
        let dot = if N == 8 {
            around::<F>(dot, group.sums32.as_ptr())
        } else if F::BYTE_ZERO != 0 {
            _mm512_sub_epi32(dot, zeros)
        } else {
            dot
        };
        let mut value = _mm512_mul_ps(_mm512_cvtepi32_ps(dot), heads.scale[0]);
        if F::LANE_OFFSETS == 1 {
            value = _mm512_fmadd_ps(heads.offset, both(lane_sums::<F, N>(group, 0, 0)), value);
        }
        _mm512_fmadd_ps(value, unit, total)
    }
}

/// `dot` without what the bytes' zero adds to it; `sums` of eight lanes, of both rows.
#[inline(always)]
unsafe fn around<F: Packed>(dot: __m512i, sums: *const f32) -> __m512i {
    if F::BYTE_ZERO == 0 {
        return dot;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let sums = _mm256_cvtps_epi32(_mm256_loadu_ps(sums));
        let zeros = _mm256_mullo_epi32(sums, _mm256_set1_epi32(F::BYTE_ZERO));
        _mm512_sub_epi32(dot, _mm512_broadcast_i64x4(zeros))
    }
}
