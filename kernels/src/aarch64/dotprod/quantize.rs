//! Quantizes activations to 16 bits, into planes; see `activations.rs` for what and why. Halves are for x86-64 and stay as they are.

use std::arch::aarch64::*;

use super::token;
use crate::activations::{GROUP, Group, Halves, LARGEST, scale_of};

/// Quantizes one row into `groups`, `x.len().div_ceil(256)` of them.
pub(crate) fn quantize(x: &[f32], _: Halves<'_>, groups: &mut [Group]) {
    token();
    assert!(groups.len() == x.len().div_ceil(GROUP));
    // SAFETY: the token proves that the instructions are there.
    unsafe { row(x, groups) }
}

#[target_feature(enable = "neon")]
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

#[target_feature(enable = "neon")]
fn group(x: &[f32; GROUP], to: &mut Group) {
    // As integers, magnitudes order like the floats, with infinity and NaN on top.
    let magnitude = vdupq_n_u32(i32::MAX as u32);
    let mut largest = vdupq_n_u32(0);
    for x in x.as_chunks::<4>().0 {
        // SAFETY: the array has four values.
        let bits = vreinterpretq_u32_f32(unsafe { vld1q_f32(x.as_ptr()) });
        largest = vmaxq_u32(largest, vandq_u32(bits, magnitude));
    }
    let largest = f32::from_bits(vmaxvq_u32(largest));
    let (scale, inverse) = scale_of(largest, LARGEST);
    to.scales = [scale; 8];
    // Where the inverse is 0 every q is: 0 * x is 0 or NaN, and NaN converts to 0.
    for (i, x) in x.as_chunks::<16>().0.iter().enumerate() {
        let mut q = [vdupq_n_s16(0); 2];
        for (q, x) in q.iter_mut().zip(x.as_chunks::<8>().0) {
            // SAFETY: the array has eight values.
            let [a, b] = unsafe { [vld1q_f32(x.as_ptr()), vld1q_f32(x.as_ptr().add(4))] };
            let [a, b] = [a, b].map(|x| vcvtnq_s32_f32(vmulq_n_f32(x, inverse)));
            *q = vmovn_high_s32(vmovn_s32(a), b);
        }
        let [a, b] = q;
        to.sums16[i] = (vaddlvq_s16(a) + vaddlvq_s16(b)) as f32;
        let high = vrshrn_high_n_s16::<8>(vrshrn_n_s16::<8>(a), b);
        let low = vmovn_high_s16(vmovn_s16(a), b);
        let [highs, lows] =
            to.planes[i / 2].0.each_mut().map(|plane| &mut plane.as_chunks_mut::<16>().0[i % 2]);
        // SAFETY: the arrays have sixteen values.
        unsafe {
            vst1q_s8(highs.as_mut_ptr(), high);
            vst1q_s8(lows.as_mut_ptr(), low);
        }
    }
    for (sum, pair) in to.sums32.iter_mut().zip(to.sums16.as_chunks::<2>().0) {
        *sum = pair[0] + pair[1];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dotprod;
    use crate::activations::{Activations, Planes};

    fn quantized(x: &[f32]) -> Vec<Group> {
        let mut to = Activations::new(1, x.len());
        let (halves, groups) = to.shape(1, x.len());
        quantize(x, halves, groups);
        to.groups
    }

    fn values(group: &Group) -> Vec<i16> {
        let planes = group.planes.iter().flat_map(|Planes([high, low])| {
            high.iter().zip(low).map(|(&high, &low)| 256 * i16::from(high) + i16::from(low))
        });
        planes.collect()
    }

    #[test]
    fn values_come_back_within_half_a_step_and_sums_are_exact() {
        let Some(_) = Dotprod::new() else { return };
        for n in [1usize, 31, 32, 256, 300, 896] {
            let x: Vec<f32> = (0..n).map(|i| ((i * 7919 % 1009) as f32 - 500.0) * 0.37).collect();
            for (group, x) in quantized(&x).iter().zip(x.chunks(GROUP)) {
                let q = values(group);
                for (&q, &x) in q.iter().zip(x) {
                    let error = (f64::from(q) * f64::from(group.scales[0]) - f64::from(x)).abs();
                    // Half a step, and the rounding of the inverse and the product: 2 ulp of at most 32639.
                    assert!(error <= f64::from(group.scales[0]) * (0.5 + 2.0 * 32639.0 * 6e-8));
                }
                assert!(q[x.len()..].iter().all(|&q| q == 0));
                for (s, sixteen) in group.sums16.iter().zip(q.chunks(16)) {
                    assert_eq!(*s, sixteen.iter().map(|&q| f32::from(q)).sum::<f32>());
                }
                for (s, pair) in group.sums32.iter().zip(group.sums16.chunks(2)) {
                    assert_eq!(*s, pair[0] + pair[1]);
                }
            }
        }
    }

    #[test]
    fn nonfinite_groups_become_nan_and_denormals_zero() {
        let Some(_) = Dotprod::new() else { return };
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; 300];
            x[17] = bad;
            let groups = quantized(&x);
            assert!(groups[0].scales[0].is_nan() && values(&groups[0]) == [0; GROUP]);
            assert_eq!(groups[1].scales[0], 1.0 / 32639.0);
        }
        let groups = quantized(&[f32::from_bits(3); 256]);
        assert!(groups[0].scales[0] == 0.0 && values(&groups[0]) == [0; GROUP]);
    }
}
