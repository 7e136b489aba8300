//! Activations for the AVX-512 kernels: as AVX2 quantizes them or, of coarse tokens, in 8 bits, then spread over lanes as the
//! weights are.
//!
//! ```text
//! lines    first the upper bytes of all groups, then the lower ones; coarse tokens have one byte a value and no lower ones
//!          per step of N runs (super::lanes): N vectors of 8 lanes of four columns
//! sums16   of columns 0 to 15 of every run, then of columns 16 to 31
//! ```

use std::arch::x86_64::*;

use super::lanes::spread;
use super::product::{Half, steps};
use super::{avx2, avx2_token, token};
use crate::activations::{GROUP, GROUP_LINES, Group, LARGEST_COARSE, Lines, Planes, scale_of};

/// Quantizes one row to 16 bits into `lines` and `groups`, `x.len().div_ceil(256)` of them.
pub(crate) fn quantize(x: &[f32], lines: &mut [Lines], groups: &mut [Group]) {
    token();
    avx2::quantize(x, lines, groups);
    for group in groups.iter_mut() {
        let sums = group.sums16;
        for (run, pair) in sums.as_chunks::<2>().0.iter().enumerate() {
            (group.sums16[run], group.sums16[run + 8]) = (pair[0], pair[1]);
        }
    }
    let (upper, lower) = halves(lines);
    for (g, (group, (upper, lower))) in groups.iter().zip(upper.iter_mut().zip(lower)).enumerate() {
        // SAFETY: the token proves that the instructions are there.
        unsafe {
            spread_group(x.len() - g * GROUP, &group.planes, 0, upper);
            spread_group(x.len() - g * GROUP, &group.planes, 1, lower);
        }
    }
}

/// The same to 8 bits, with a scale for every run of 32.
pub(crate) fn quantize_coarse(x: &[f32], lines: &mut [Lines], groups: &mut [Group]) {
    token();
    avx2_token();
    assert!(groups.len() == x.len().div_ceil(GROUP) && lines.len() == groups.len());
    let (upper, _) = halves(lines);
    for (x, (group, upper)) in x.chunks(GROUP).zip(groups.iter_mut().zip(upper)) {
        // SAFETY: the tokens prove that the instructions are there.
        unsafe {
            match x.as_array() {
                Some(x) => quantize_group(x, GROUP, group, upper),
                None => {
                    let mut padded = [0.0; GROUP];
                    padded[..x.len()].copy_from_slice(x);
                    quantize_group(&padded, x.len(), group, upper);
                }
            }
        }
    }
}

/// Both halves of a row's lines, one element a group.
fn halves(lines: &mut [Lines]) -> (&mut [Half], &mut [Half]) {
    let n = lines.len();
    let halves = lines.as_flattened_mut().as_chunks_mut::<{ GROUP_LINES / 2 }>().0;
    halves.split_at_mut(n)
}

/// `len` columns and zeros after them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
fn quantize_group(x: &[f32; GROUP], len: usize, group: &mut Group, upper: &mut Half) {
    for (run, x) in x.as_chunks::<32>().0.iter().enumerate() {
        let (scale, sums) = quantize_run(x, &mut group.planes[run].0[0]);
        group.scales[run] = scale;
        group.sums32[run] = (sums[0] + sums[1]) as f32;
        (group.sums16[run], group.sums16[run + 8]) = (sums[0] as f32, sums[1] as f32);
    }
    spread_group(len, &group.planes, 0, upper);
}

/// Scale of a run, its values, and the sums of the first and last sixteen of those.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn quantize_run(x: &[f32; 32], q: &mut [i8; 32]) -> (f32, [i32; 2]) {
    // SAFETY: the arrays have 32 values.
    unsafe {
        let x = [_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16))];
        // As integers, magnitudes order like the floats, with infinity and NaN on top.
        let magnitude = _mm512_set1_epi32(i32::MAX);
        let [a, b] = x.map(|x| _mm512_and_si512(_mm512_castps_si512(x), magnitude));
        let largest = f32::from_bits(_mm512_reduce_max_epu32(_mm512_max_epu32(a, b)));
        let (scale, inverse) = scale_of(largest, LARGEST_COARSE);
        // Where the inverse is 0 every q is, also that of NaN.
        let keep = if inverse == 0.0 { 0 } else { u16::MAX };
        let inverse = _mm512_set1_ps(inverse);
        let mut sums = [0; 2];
        for i in 0..2 {
            let whole = _mm512_maskz_cvtps_epi32(keep, _mm512_mul_ps(x[i], inverse));
            sums[i] = _mm512_reduce_add_epi32(whole);
            _mm_storeu_si128(q.as_mut_ptr().add(16 * i).cast(), _mm512_cvtsepi32_epi8(whole));
        }
        (scale, sums)
    }
}

/// Spreads the runs of a plane (0 or 1) of a group of `len` columns; more are cut off.
#[target_feature(enable = "avx2")]
fn spread_group(len: usize, planes: &[Planes; GROUP_LINES], plane: usize, to: &mut Half) {
    let to = to.as_mut_ptr().cast::<__m256i>();
    for (first, runs) in steps(len.div_ceil(32).min(GROUP_LINES)) {
        // SAFETY: a step's runs are inside the group, both here and there; AVX2 is there.
        unsafe {
            let mut v = [_mm256_setzero_si256(); 8];
            for (v, run) in v.iter_mut().zip(&planes[first..first + runs]) {
                *v = _mm256_load_si256(run.0[plane].as_ptr().cast());
            }
            match runs {
                8 => spread::<8>(&mut v),
                4 => spread::<4>(&mut v),
                2 => spread::<2>(&mut v),
                _ => spread::<1>(&mut v),
            }
            for (j, v) in v[..runs].iter().enumerate() {
                _mm256_store_si256(to.add(first + j), *v);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activations::Activations;
    use crate::isa::Avx512;

    fn coarse(x: &[f32]) -> (Vec<Lines>, Vec<Group>) {
        let mut to = Activations::new(1, x.len());
        let (lines, groups) = to.shape(1, x.len());
        quantize_coarse(x, lines, groups);
        (to.lines, to.groups)
    }

    #[test]
    fn coarse_values_are_within_half_a_step_of_their_run_and_sums_are_exact() {
        let Some(_) = Avx512::new() else { return };
        for n in [32usize, 96, 256, 320, 896] {
            let x: Vec<f32> = (0..n).map(|i| ((i * 7919 % 1009) as f32 - 500.0) * 0.37).collect();
            let (mut lines, groups) = coarse(&x);
            let (upper, _) = halves(&mut lines);
            for (g, (x, group)) in x.chunks(GROUP).zip(&groups).enumerate() {
                let bytes: Vec<i8> = upper[g]
                    .iter()
                    .flat_map(|line| line.0)
                    .flat_map(i16::to_le_bytes)
                    .map(|b| b as i8)
                    .collect();
                let mut sums = [0.0; 8];
                for (first, runs) in steps(x.len() / 32) {
                    // Lane l of vector j has four columns of run l % runs; which ones, `lanes.rs` draws.
                    for j in 0..runs {
                        for lane in 0..8 {
                            let run = first + lane % runs;
                            let cell = match runs {
                                8 | 1 => j + if runs == 1 { lane } else { 0 },
                                4 => j + 4 * (lane / 4),
                                _ => [0, 0, 1, 1, 4, 4, 5, 5][lane] + 2 * j,
                            };
                            for i in 0..4 {
                                let q = f32::from(bytes[32 * (first + j) + 4 * lane + i]);
                                let x = x[32 * run + 4 * cell + i];
                                let step = group.scales[run];
                                // Half a step, and the rounding of the inverse and the product.
                                assert!(
                                    (q * step - x).abs() <= step * (0.5 + 127.0 * 3.0 * 6e-8),
                                    "{n} {q} {step} {x}"
                                );
                                sums[run] += q;
                            }
                        }
                    }
                }
                assert_eq!(sums, group.sums32);
                for run in 0..8 {
                    assert_eq!(group.sums32[run], group.sums16[run] + group.sums16[run + 8]);
                }
            }
        }
    }

    #[test]
    fn a_coarse_run_with_something_not_finite_has_no_scale_and_its_neighbours_do() {
        let Some(_) = Avx512::new() else { return };
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; 64];
            x[33] = bad;
            let (_, groups) = coarse(&x);
            assert_eq!(groups[0].scales[0], 1.0 / 127.0);
            assert!(groups[0].scales[1].is_nan() && groups[0].sums32[1] == 0.0);
        }
        let (_, groups) = coarse(&[f32::from_bits(3); 32]);
        assert!(groups[0].scales[0] == 0.0 && groups[0].sums32[0] == 0.0);
    }
}
