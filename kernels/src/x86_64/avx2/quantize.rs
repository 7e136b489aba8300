//! Quantizes activations to 16 bits; see `activations.rs` for what and why.

use std::arch::x86_64::*;

use super::token;
use crate::activations::{GROUP, Group};

/// Below this a group is zero: its inverse scale would overflow.
const TINY: f32 = 1e-30;

/// Quantizes one row into `groups`, `x.len().div_ceil(256)` of them.
pub(crate) fn quantize(x: &[f32], groups: &mut [Group]) {
    token();
    assert_eq!(groups.len(), x.len().div_ceil(GROUP));
    // SAFETY: the token proves that the instructions are there.
    unsafe { row(x, groups) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn row(x: &[f32], groups: &mut [Group]) {
    for (x, to) in x.chunks(GROUP).zip(groups) {
        match x.as_array::<GROUP>() {
            Some(x) => group(x, to),
            None => {
                let mut padded = [0.0; GROUP];
                padded[..x.len()].copy_from_slice(x);
                group(&padded, to);
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn group(x: &[f32; GROUP], to: &mut Group) {
    // As integers, magnitudes order like the floats, with infinity and NaN on top.
    let magnitude = _mm256_set1_epi32(i32::MAX);
    let mut largest = _mm256_setzero_si256();
    for x in x.as_chunks::<8>().0 {
        // SAFETY: the array has eight values.
        let bits = unsafe { _mm256_loadu_si256(x.as_ptr().cast()) };
        largest = _mm256_max_epu32(largest, _mm256_and_si256(bits, magnitude));
    }
    let mut lanes = [0u32; 8];
    // SAFETY: the array has eight values.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), largest) };
    let largest = f32::from_bits(lanes.into_iter().fold(0, u32::max));
    let usable = largest.is_finite() && largest >= TINY;
    to.scale = if usable {
        largest / 32767.0
    } else if largest.is_finite() {
        0.0
    } else {
        f32::NAN
    };
    // For an unusable group every q is 0: 0 * x is 0 or NaN, and min with 32767 in front turns NaN into garbage, so the
    // values are masked as integers.
    let inverse = _mm256_set1_ps(if usable { 32767.0 / largest } else { 0.0 });
    let keep = _mm256_set1_epi32(if usable { -1 } else { 0 });
    let ones = _mm256_set1_epi16(1);
    for (i, x) in x.as_chunks::<16>().0.iter().enumerate() {
        // SAFETY: the array has sixteen values.
        let (a, b) = unsafe { (_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))) };
        let a = _mm256_and_si256(_mm256_cvtps_epi32(_mm256_mul_ps(a, inverse)), keep);
        let b = _mm256_and_si256(_mm256_cvtps_epi32(_mm256_mul_ps(b, inverse)), keep);
        // packs works within 128-bit halves; the permutation restores the order.
        let q = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a, b));
        let half = &mut to.q[i / 2].0[i % 2 * 16..][..16];
        // SAFETY: the slice has sixteen values.
        unsafe { _mm256_storeu_si256(half.as_mut_ptr().cast(), q) };
        let pairs = _mm256_madd_epi16(q, ones);
        let four = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
        let one = _mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two));
        to.sums16[i] = _mm_cvtsi128_si32(one) as f32;
    }
    for (sum, pair) in to.sums32.iter_mut().zip(to.sums16.as_chunks::<2>().0) {
        *sum = pair[0] + pair[1];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Avx2;
    use crate::activations::Activations;

    fn quantized(x: &[f32]) -> Vec<Group> {
        let mut to = Activations::new(1, x.len());
        quantize(x, to.shape(1, x.len()));
        to.groups
    }

    #[test]
    fn values_come_back_within_half_a_step_and_sums_are_exact() {
        let Some(_) = Avx2::new() else { return };
        for n in [1usize, 31, 32, 256, 300, 896] {
            let x: Vec<f32> = (0..n).map(|i| ((i * 7919 % 1009) as f32 - 500.0) * 0.37).collect();
            for (group, x) in quantized(&x).iter().zip(x.chunks(GROUP)) {
                let q = group.q.iter().flat_map(|line| line.0).collect::<Vec<_>>();
                for (&q, &x) in q.iter().zip(x) {
                    let error = (f64::from(q) * f64::from(group.scale) - f64::from(x)).abs();
                    // Half a step, and the rounding of the inverse and the product: 2 ulp of at most 32767.
                    assert!(error <= f64::from(group.scale) * (0.5 + 2.0 * 32767.0 * 6e-8));
                }
                assert!(q[x.len()..].iter().all(|&q| q == 0));
                for (s, sixteen) in group.sums16.iter().zip(q.chunks(16)) {
                    assert_eq!(*s, sixteen.iter().map(|&q| f32::from(q)).sum::<f32>());
                }
            }
        }
    }

    #[test]
    fn nonfinite_groups_become_nan_and_denormals_zero() {
        let Some(_) = Avx2::new() else { return };
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; 300];
            x[17] = bad;
            let groups = quantized(&x);
            assert!(groups[0].scale.is_nan() && groups[0].q.iter().all(|line| line.0 == [0; 32]));
            assert_eq!(groups[1].scale, 1.0 / 32767.0);
        }
        let groups = quantized(&[f32::from_bits(3); 256]);
        assert!(groups[0].scale == 0.0 && groups[0].q.iter().all(|line| line.0 == [0; 32]));
    }
}
