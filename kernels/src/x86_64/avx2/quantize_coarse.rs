//! Quantizes activations of coarse tokens: 8 bits, a scale for every run of 32, spread over lanes as the weights are.
//!
//! ```text
//! halves   the first ones alone; per step of N runs (super::runs): N vectors of 8 lanes of four columns
//! sums16   of columns 0 to 15 of every run, then of columns 16 to 31
//! ```

use std::arch::x86_64::*;

use super::runs::{spread, steps};
use super::token;
use crate::activations::{GROUP, GROUP_LINES, Group, Half, Halves, LARGEST_COARSE, Planes, scale_of};

/// Quantizes one row into `halves` and `groups`, `x.len().div_ceil(256)` of them.
pub(crate) fn quantize_coarse(x: &[f32], [first, _]: Halves<'_>, groups: &mut [Group]) {
    token();
    assert!(groups.len() == x.len().div_ceil(GROUP) && first.len() == groups.len());
    for (x, (group, first)) in x.chunks(GROUP).zip(groups.iter_mut().zip(first)) {
        // SAFETY: the token proves that the instructions are there.
        unsafe {
            match x.as_array() {
                Some(x) => quantize_group(x, GROUP, group, first),
                None => {
                    let mut padded = [0.0; GROUP];
                    padded[..x.len()].copy_from_slice(x);
                    quantize_group(&padded, x.len(), group, first);
                }
            }
        }
    }
}

/// `len` columns and zeros after them.
#[target_feature(enable = "avx2,fma,f16c")]
fn quantize_group(x: &[f32; GROUP], len: usize, group: &mut Group, first: &mut Half) {
    for (run, x) in x.as_chunks::<32>().0.iter().enumerate() {
        let (scale, sums) = quantize_run(x, &mut group.planes[run].0[0]);
        group.scales[run] = scale;
        group.sums32[run] = (sums[0] + sums[1]) as f32;
        (group.sums16[run], group.sums16[run + 8]) = (sums[0] as f32, sums[1] as f32);
    }
    spread_group(len, &group.planes, 0, first);
}

/// Scale of a run, its values, and the sums of the first and last sixteen of those.
#[target_feature(enable = "avx2,fma,f16c")]
fn quantize_run(x: &[f32; 32], q: &mut [i8; 32]) -> (f32, [i32; 2]) {
    // As integers, magnitudes order like the floats, with infinity and NaN on top.
    let magnitude = _mm256_set1_epi32(i32::MAX);
    let mut largest = _mm256_setzero_si256();
    let mut values = [_mm256_setzero_ps(); 4];
    for (v, x) in values.iter_mut().zip(x.as_chunks::<8>().0) {
        // SAFETY: the array has eight values.
        *v = unsafe { _mm256_loadu_ps(x.as_ptr()) };
        largest = _mm256_max_epu32(largest, _mm256_and_si256(_mm256_castps_si256(*v), magnitude));
    }
    let four = _mm_max_epu32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256::<1>(largest));
    let two = _mm_max_epu32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    let one = _mm_max_epu32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two));
    let (scale, inverse) = scale_of(f32::from_bits(_mm_cvtsi128_si32(one) as u32), LARGEST_COARSE);
    // Where the inverse is 0 every q is, also that of NaN.
    let keep = _mm256_set1_epi32(if inverse == 0.0 { 0 } else { -1 });
    let inverse = _mm256_set1_ps(inverse);
    let mut whole = [_mm256_setzero_si256(); 4];
    for (whole, x) in whole.iter_mut().zip(values) {
        *whole = _mm256_and_si256(_mm256_cvtps_epi32(_mm256_mul_ps(x, inverse)), keep);
    }
    let [a, b, c, d] = whole;
    let packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    // Packing works within 128-bit halves; this restores the order.
    let bytes = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    // SAFETY: the array has 32 bytes.
    unsafe { _mm256_storeu_si256(q.as_mut_ptr().cast(), bytes) };
    // Sums of four bytes each.
    let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
    let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    let twos = _mm256_add_epi32(fours, _mm256_shuffle_epi32::<0b10_11_00_01>(fours));
    let sums = _mm256_add_epi32(twos, _mm256_shuffle_epi32::<0b01_00_11_10>(twos));
    let upper = _mm_cvtsi128_si32(_mm256_extracti128_si256::<1>(sums));
    (scale, [_mm256_cvtsi256_si32(sums), upper])
}

/// Spreads the runs of a plane (0 or 1) of a group of `len` columns; more are cut off.
#[target_feature(enable = "avx2")]
pub(in crate::x86_64) fn spread_group(
    len: usize,
    planes: &[Planes; GROUP_LINES],
    plane: usize,
    to: &mut Half,
) {
    spread_runs(len, |run| bytemuck::cast_ref(&planes[run].0[plane]), to);
}

/// Spreads runs of a group of `len` columns; more are cut off.
#[target_feature(enable = "avx2")]
pub(in crate::x86_64) fn spread_runs<'r>(len: usize, of: impl Fn(usize) -> &'r [u8; 32], to: &mut Half) {
    let to = to.0.as_mut_ptr().cast::<__m256i>();
    for (first, runs) in steps(len.div_ceil(32).min(GROUP_LINES)) {
        // SAFETY: a step's runs are inside the group, both here and there; AVX2 is there.
        unsafe {
            let mut v = [_mm256_setzero_si256(); 8];
            for (i, v) in v[..runs].iter_mut().enumerate() {
                *v = _mm256_loadu_si256(of(first + i).as_ptr().cast());
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
    use crate::isa::Avx2;

    fn coarse(x: &[f32]) -> (Vec<Half>, Vec<Group>) {
        let mut to = Activations::new(1, x.len());
        let (halves, groups) = to.shape(1, x.len());
        quantize_coarse(x, halves, groups);
        let [first, _] = to.halves;
        (first, to.groups)
    }

    #[test]
    fn coarse_values_are_within_half_a_step_of_their_run_and_sums_are_exact() {
        let Some(_) = Avx2::new() else { return };
        for n in [32usize, 96, 256, 320, 896] {
            let x: Vec<f32> = (0..n).map(|i| ((i * 7919 % 1009) as f32 - 500.0) * 0.37).collect();
            let (halves, groups) = coarse(&x);
            for (g, (x, group)) in x.chunks(GROUP).zip(&groups).enumerate() {
                let bytes: Vec<i8> = halves[g].0.as_flattened().iter().map(|&b| b as i8).collect();
                let mut sums = [0.0; 8];
                for (first, runs) in steps(x.len() / 32) {
                    // Lane l of vector j has four columns of run l % runs; which ones, `runs.rs` draws.
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
        let Some(_) = Avx2::new() else { return };
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
