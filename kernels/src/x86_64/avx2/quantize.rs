//! Quantizes activations to 16 bits; see `activations.rs` for what and why.
//!
//! ```text
//! halves   even values and odd ones, planes upper bytes and lower ones: of every step of N runs N vectors of 8 lanes of four columns (runs.rs)
//! sums16   of columns 0 to 15 of every run, then of columns 16 to 31
//! ```

use std::arch::x86_64::*;

use super::quantize_coarse::{spread_group, spread_runs};
use super::token;
use crate::activations::{GROUP, GROUP_LINES, Group, Half, Halves, LARGEST, scale_of};

/// Quantizes one row into `halves` and `groups`, `x.len().div_ceil(256)` of them.
pub(crate) fn quantize(x: &[f32], [even, odd]: Halves<'_>, groups: &mut [Group]) {
    quantize_runs(x, [&mut *even, &mut *odd], groups);
    for (g, (group, halves)) in groups.iter_mut().zip(even.iter_mut().zip(odd)).enumerate() {
        by_halves(group);
        let len = x.len() - g * GROUP;
        // SAFETY: the token proves that the instructions are there.
        unsafe { spread_all(len, group, halves) }
    }
}

/// Sums of sixteen, run by run, become those of first halves of runs, then those of second ones.
pub(in crate::x86_64) fn by_halves(group: &mut Group) {
    let sums = group.sums16;
    for (run, pair) in sums.as_chunks::<2>().0.iter().enumerate() {
        (group.sums16[run], group.sums16[run + 8]) = (pair[0], pair[1]);
    }
}

/// Spreads halves and planes of a group of `len` columns, which stand run by run.
#[target_feature(enable = "avx2")]
fn spread_all(len: usize, group: &mut Group, (even, odd): (&mut Half, &mut Half)) {
    for half in [even, odd] {
        let runs = *half;
        spread_runs(len, |run| &runs.0[run], half);
    }
    let mut planes = [Half([[0; 32]; GROUP_LINES]); 2];
    for (plane, to) in planes.iter_mut().enumerate() {
        spread_group(len, &group.planes, plane, to);
    }
    for (j, to) in group.planes.iter_mut().enumerate() {
        to.0 = [0, 1].map(|plane| planes[plane].0[j].map(|byte| byte as i8));
    }
}

/// The same, run by run: halves of even and odd values, planes in order, and `sums16` of the first and the second half of a run.
pub(in crate::x86_64) fn quantize_runs(x: &[f32], halves: Halves<'_>, groups: &mut [Group]) {
    token();
    assert_eq!(groups.len(), x.len().div_ceil(GROUP));
    assert!(halves.iter().all(|half| half.len() == groups.len()));
    // SAFETY: the token proves that the instructions are there.
    unsafe { row(x, halves, groups) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn row(x: &[f32], [even, odd]: Halves<'_>, groups: &mut [Group]) {
    for ((x, halves), to) in x.chunks(GROUP).zip(even.iter_mut().zip(odd)).zip(groups) {
        match x.as_array::<GROUP>() {
            Some(x) => group(x, halves, to),
            None => {
                let mut padded = [0.0; GROUP];
                padded[..x.len()].copy_from_slice(x);
                group(&padded, halves, to);
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn group(x: &[f32; GROUP], halves: (&mut Half, &mut Half), to: &mut Group) {
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
    let (scale, inverse) = scale_of(largest, LARGEST);
    to.scales = [scale; 8];
    // Where the inverse is 0 every q is: 0 * x is 0 or NaN, and converting NaN gives garbage, so the values are masked as
    // integers.
    let keep = _mm256_set1_epi32(if inverse == 0.0 { 0 } else { -1 });
    let inverse = _mm256_set1_ps(inverse);
    for (i, x) in x.as_chunks::<32>().0.iter().enumerate() {
        let mut q = [_mm256_setzero_si256(); 2];
        for (k, x) in x.as_chunks::<16>().0.iter().enumerate() {
            // SAFETY: the array has sixteen values.
            let (a, b) = unsafe { (_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))) };
            let a = _mm256_and_si256(_mm256_cvtps_epi32(_mm256_mul_ps(a, inverse)), keep);
            let b = _mm256_and_si256(_mm256_cvtps_epi32(_mm256_mul_ps(b, inverse)), keep);
            q[k] = in_order(_mm256_packs_epi32(a, b));
            to.sums16[2 * i + k] = sum(q[k]) as f32;
        }
        let [a, b] = q;
        let even = |x| _mm256_srai_epi32::<16>(_mm256_slli_epi32::<16>(x));
        let odd = |x| _mm256_srai_epi32::<16>(x);
        let low = |x| _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x));
        let high = |x| _mm256_srai_epi16::<8>(_mm256_add_epi16(x, _mm256_set1_epi16(128)));
        let evens = halves.0.0[i].as_mut_ptr().cast::<__m256i>();
        let odds = halves.1.0[i].as_mut_ptr().cast::<__m256i>();
        let planes = to.planes[i].0.as_mut_ptr().cast::<__m256i>();
        // SAFETY: a run is a vector of either half, its planes are two, and all are aligned.
        unsafe {
            _mm256_store_si256(evens, in_order(_mm256_packs_epi32(even(a), even(b))));
            _mm256_store_si256(odds, in_order(_mm256_packs_epi32(odd(a), odd(b))));
            _mm256_store_si256(planes, in_order(_mm256_packs_epi16(high(a), high(b))));
            _mm256_store_si256(planes.add(1), in_order(_mm256_packs_epi16(low(a), low(b))));
        }
    }
    for (sum, pair) in to.sums32.iter_mut().zip(to.sums16.as_chunks::<2>().0) {
        *sum = pair[0] + pair[1];
    }
}

/// Packing works within 128-bit halves; this restores the order.
#[target_feature(enable = "avx2")]
fn in_order(packed: __m256i) -> __m256i {
    _mm256_permute4x64_epi64::<0b11_01_10_00>(packed)
}

/// Sum of sixteen i16.
#[target_feature(enable = "avx2")]
fn sum(q: __m256i) -> i32 {
    let pairs = _mm256_madd_epi16(q, _mm256_set1_epi16(1));
    let four = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Avx2;
    use crate::activations::{Activations, Planes};

    fn quantized(x: &[f32]) -> Vec<([Half; 2], Group)> {
        let mut to = Activations::new(1, x.len());
        let (halves, groups) = to.shape(1, x.len());
        quantize_runs(x, halves, groups);
        let [even, odd] = to.halves;
        even.into_iter().zip(odd).map(|(even, odd)| [even, odd]).zip(to.groups).collect()
    }

    /// The values in order, which halves and planes must agree on.
    fn in_order((halves, group): &([Half; 2], Group)) -> Vec<i16> {
        let [even, odd] = halves.map(|half| {
            half.0.as_flattened().as_chunks().0.iter().copied().map(i16::from_le_bytes).collect::<Vec<_>>()
        });
        let halves = even.into_iter().zip(odd).flat_map(|(even, odd)| [even, odd]);
        let planes = group.planes.iter().flat_map(|Planes([high, low])| {
            high.iter().zip(low).map(|(&high, &low)| 256 * i16::from(high) + i16::from(low))
        });
        let (halves, planes): (Vec<_>, Vec<_>) = (halves.collect(), planes.collect());
        assert_eq!(halves, planes);
        halves
    }

    #[test]
    fn values_come_back_within_half_a_step_and_sums_are_exact() {
        let Some(_) = Avx2::new() else { return };
        for n in [1usize, 31, 32, 256, 300, 896] {
            let x: Vec<f32> = (0..n).map(|i| ((i * 7919 % 1009) as f32 - 500.0) * 0.37).collect();
            for (group, x) in quantized(&x).iter().zip(x.chunks(GROUP)) {
                let (q, group) = (in_order(group), &group.1);
                for (&q, &x) in q.iter().zip(x) {
                    let error = (f64::from(q) * f64::from(group.scales[0]) - f64::from(x)).abs();
                    // Half a step, and the rounding of the inverse and the product: 2 ulp of at most 32639.
                    assert!(error <= f64::from(group.scales[0]) * (0.5 + 2.0 * 32639.0 * 6e-8));
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
            assert!(groups[0].1.scales[0].is_nan() && in_order(&groups[0]) == [0; GROUP]);
            assert_eq!(groups[1].1.scales[0], 1.0 / 32639.0);
        }
        let groups = quantized(&[f32::from_bits(3); 256]);
        assert!(groups[0].1.scales[0] == 0.0 && in_order(&groups[0]) == [0; GROUP]);
    }
}
