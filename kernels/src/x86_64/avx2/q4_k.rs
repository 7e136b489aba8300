//! Q4_K: q <= 15, scaled by sc <= 63 for each run.

use std::arch::x86_64::*;

use cchaha_plan::Format;

use super::weights::{Head, Sub, Weights, bytes32, half, nibble};

/// See `formats/q4_k.rs` for the layout.
pub(in crate::x86_64) struct Blocks;

impl Weights for Blocks {
    const FORMAT: Format = Format::Q4_K;
    const SIGNED: bool = false;
    const MOST: u8 = 15;
    const SUB: Sub = Sub::Runs;
    const OFFSETS: usize = 8;

    #[inline(always)]
    unsafe fn head(group: *const u8, _: usize) -> Head {
        // SAFETY: the caller's promise.
        unsafe { head_of(group) }
    }

    #[inline(always)]
    unsafe fn load(group: *const u8, b: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { nibble(bytes32(group.add(16 + 32 * (b / 2))), b % 2) }
    }
}

/// The first 16 bytes of Q4_K and Q5_K blocks: `sc` and `m` are eight 6-bit numbers each.
///
/// # Safety
/// AVX2 and F16C; 16 readable bytes.
#[inline(always)]
pub(in crate::x86_64) unsafe fn head_of(group: *const u8) -> Head {
    // SAFETY: the caller's promise.
    unsafe {
        let word = |at: usize| group.add(at).cast::<u32>().read_unaligned();
        let (scs, ms, low) = (word(4), word(8), word(12));
        // Four 6-bit numbers per word, one per byte.
        let sc = [scs & 0x3f3f_3f3f, (low & 0x0f0f_0f0f) | (scs >> 2 & 0x3030_3030)];
        let m = [ms & 0x3f3f_3f3f, (low >> 4 & 0x0f0f_0f0f) | (ms >> 2 & 0x3030_3030)];
        let sc = _mm_set_epi32(0, 0, sc[1] as i32, sc[0] as i32);
        let m = _mm_set_epi32(0, 0, m[1] as i32, m[0] as i32);
        let mut head = Head::EMPTY;
        head.scale[0] = half(group);
        let sc = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(sc, sc));
        _mm256_storeu_si256(head.sub.as_mut_ptr().cast(), sc);
        let m = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(m));
        _mm256_storeu_ps(head.offset.as_mut_ptr(), _mm256_mul_ps(m, _mm256_set1_ps(-half(group.add(2)))));
        head
    }
}
