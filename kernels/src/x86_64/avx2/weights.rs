//! What a quantized format tells the 16-bit matrix loop: how to turn 32 values into two vectors of i16.
//!
//! No closures around intrinsics here and in the formats: with them Q6_K ran twenty times slower (0.3 GB/s), probably
//! because a closure that is not inlined is compiled without AVX2.
//!
//! Zen has two shuffle ports for four vector pipes, and the optimizer spends them freely: it turns one widening load and
//! 256-bit masks into 128-bit masks and two widening moves, and broadcasts out of registers what it could load
//! broadcast. [`opaque`] and [`settle`] hide values from it where that cost up to half the speed.

use std::arch::asm;
use std::arch::x86_64::*;

use cchaha_plan::Format;

/// Scales and offsets of a group of 256 values.
#[derive(Clone, Copy)]
pub(super) struct Head {
    /// f32 scale of every span.
    pub(super) scale: [f32; 8],
    /// Offsets per 32 or per 16 values; see [`Weights::OFFSETS`].
    pub(super) offset: [f32; 16],
    /// Integer scales, each twice as i16 (see [`twice`]) so that one load broadcasts it; [`Weights::load`] knows which is
    /// whose.
    pub(super) sub: [i32; 16],
}

impl Head {
    pub(super) const EMPTY: Head = Head { scale: [0.0; 8], offset: [0.0; 16], sub: [0; 16] };
}

/// A format, 256 values at a time.
///
/// ```text
/// value = scale[span] * w + offset[..],   w: i16, the quant times its integer scale where the format has one
/// ```
/// A span is summed in i32: with |x| <= 32767, `SPAN / 8` products per lane and |w| as each format states, the sum must
/// stay below 2^31 = 2147483648. The bound stands in every format's header.
pub(super) trait Weights {
    const FORMAT: Format;
    /// Spans in a group: 8 (of 32 values), 2 (of 128) or 1 (of 256).
    const SPANS: usize;
    /// Offsets in a group: 0, 8 (per 32 values) or 16 (per 16 values).
    const OFFSETS: usize;
    /// Bytes of a group.
    const BYTES: usize = 256 / Self::FORMAT.block_len() * Self::FORMAT.block_bytes();

    /// Scales and offsets of `blocks` (1 to 8) runs of 32 values; zeros after them.
    ///
    /// # Safety
    /// AVX2, and `group` points at that many.
    unsafe fn head(group: *const u8, blocks: usize) -> Head;

    /// Run `b` of 32 values.
    ///
    /// # Safety
    /// AVX2, `group` holds run `b`, and `sub` is [`Head::sub`] of this group.
    unsafe fn load(group: *const u8, sub: &[i32; 16], b: usize) -> [__m256i; 2];
}

/// `x`, of which the optimizer knows nothing from here on.
///
/// # Safety
/// AVX2.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn opaque(mut x: __m256i) -> __m256i {
    // SAFETY: no instruction is emitted.
    unsafe { asm!("/* {0} */", inout(ymm_reg) x, options(pure, nomem, nostack, preserves_flags)) };
    x
}

/// Makes the optimizer keep `x` in memory and read it from there from here on.
#[inline(always)]
pub(super) fn settle<T>(x: &mut T) {
    // SAFETY: no instruction is emitted.
    unsafe { asm!("/* {0} */", in(reg) x, options(nostack, preserves_flags)) };
}

/// A number in both halves of an i32.
#[inline(always)]
pub(super) fn twice(x: i16) -> i32 {
    i32::from(x as u16) * 0x1_0001
}

/// The f16 at the start of `blocks` blocks of `stride` bytes, as f32; zeros after them.
///
/// # Safety
/// AVX2 and F16C, and the blocks are readable.
#[inline(always)]
pub(super) unsafe fn halves(first: *const u8, stride: usize, blocks: usize) -> [f32; 8] {
    // Collected in general registers, which leaves the vector pipes to the products.
    let mut words = [0u64; 2];
    for b in 0..blocks {
        // SAFETY: the caller's promise.
        let bits = unsafe { first.add(b * stride).cast::<u16>().read_unaligned() };
        words[b / 4] |= u64::from(bits) << (16 * (b % 4));
    }
    let mut out = [0.0; 8];
    // SAFETY: F16C is there; the array has eight values.
    unsafe {
        let bits = _mm_set_epi64x(words[1] as i64, words[0] as i64);
        _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(bits));
    }
    out
}

/// One f16.
///
/// # Safety
/// AVX2 and F16C, and two readable bytes.
#[inline(always)]
pub(super) unsafe fn half(at: *const u8) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let bits = i32::from(at.cast::<u16>().read_unaligned());
        _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)))
    }
}

/// 16 bytes.
///
/// # Safety
/// Readable.
#[inline(always)]
pub(super) unsafe fn bytes16(at: *const u8) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe { _mm_loadu_si128(at.cast()) }
}

/// 16 bytes, each in 16 bits.
///
/// # Safety
/// AVX2; readable.
#[inline(always)]
pub(super) unsafe fn widened(at: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { opaque(_mm256_cvtepu8_epi16(bytes16(at))) }
}

/// Low and high nibbles of 16 bytes, each in 16 bits.
///
/// # Safety
/// AVX2; readable.
#[inline(always)]
pub(super) unsafe fn nibbles(at: *const u8) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let x = widened(at);
        [_mm256_and_si256(x, _mm256_set1_epi16(15)), _mm256_srli_epi16::<4>(x)]
    }
}

/// The low (`which` 0) or high (1) nibble of widened bytes.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(super) unsafe fn nibble(x: __m256i, which: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { if which == 0 { _mm256_and_si256(x, _mm256_set1_epi16(15)) } else { _mm256_srli_epi16::<4>(x) } }
}

/// Low and high nibbles of 16 bytes through a table of 16 signed bytes.
///
/// # Safety
/// AVX2; readable.
#[inline(always)]
pub(super) unsafe fn looked_up(at: *const u8, table: &[i8; 16]) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let (x, mask) = (bytes16(at), _mm_set1_epi8(15));
        let table = _mm_loadu_si128(table.as_ptr().cast());
        let (low, high) = (_mm_and_si128(x, mask), _mm_and_si128(_mm_srli_epi16::<4>(x), mask));
        [
            _mm256_cvtepi8_epi16(_mm_shuffle_epi8(table, low)),
            _mm256_cvtepi8_epi16(_mm_shuffle_epi8(table, high)),
        ]
    }
}

/// All bits set in the lanes whose bit is set among the 32 bits at `at`: lanes of the first 16 bits, then of the others.
///
/// A broadcast of 32 bits puts one half into the even lanes and the other into the odd ones; broadcasts from two bytes
/// before and after have the halves the other way round, so two blends and no shuffle make both vectors.
///
/// # Safety
/// AVX2; readable, two bytes before and after included.
#[inline(always)]
pub(super) unsafe fn lanes_of(at: *const u8) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let [before, here, after] = [broadcast(at.sub(2)), broadcast(at), broadcast(at.add(2))];
        let one_each =
            _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, i16::MIN);
        let first = _mm256_blend_epi16::<0b1010_1010>(here, before);
        let second = _mm256_blend_epi16::<0b1010_1010>(after, here);
        [
            _mm256_cmpeq_epi16(_mm256_and_si256(first, one_each), one_each),
            _mm256_cmpeq_epi16(_mm256_and_si256(second, one_each), one_each),
        ]
    }
}

/// Four bytes in every 32-bit lane.
#[inline(always)]
unsafe fn broadcast(at: *const u8) -> __m256i {
    // SAFETY: the caller has AVX2 and four readable bytes.
    unsafe { opaque(_mm256_set1_epi32(at.cast::<i32>().read_unaligned())) }
}

/// `w` times two integer scales, given [`twice`] each.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(super) unsafe fn scaled(w: [__m256i; 2], first: i32, second: i32) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        [
            _mm256_mullo_epi16(w[0], _mm256_set1_epi32(first)),
            _mm256_mullo_epi16(w[1], _mm256_set1_epi32(second)),
        ]
    }
}
