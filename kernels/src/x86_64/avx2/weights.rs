//! What a quantized format tells the 16-bit matrix loop: how to turn 32 values into two vectors of i16.
//!
//! No closures around intrinsics here and in the formats: a closure that the compiler does not inline is compiled without
//! AVX2, every intrinsic in it becomes a call, and the kernel runs twenty times slower (seen on Q6_K: 0.3 GB/s).

use std::arch::x86_64::*;

use cchaha_plan::Format;

/// Scales and offsets of a group of 256 values.
#[derive(Clone, Copy)]
pub(super) struct Head {
    /// f32 scale of every span.
    pub(super) scale: [f32; 8],
    /// Offsets per 32 or per 16 values; see [`Weights::OFFSETS`].
    pub(super) offset: [f32; 16],
    /// Integer scales of 16 values each, for [`Weights::load`]'s own use.
    pub(super) sub: [i16; 16],
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
    /// AVX2, `group` holds run `b`, and `head` is of this group.
    unsafe fn load(group: *const u8, head: &Head, b: usize) -> [__m256i; 2];
}

/// The f16 at the start of `blocks` blocks of `stride` bytes, as f32; zeros after them.
///
/// # Safety
/// AVX2 and F16C, and the blocks are readable.
#[inline(always)]
pub(super) unsafe fn halves(first: *const u8, stride: usize, blocks: usize) -> [f32; 8] {
    let mut bits = [0u16; 8];
    for (b, bits) in bits.iter_mut().enumerate().take(blocks) {
        // SAFETY: the caller's promise.
        *bits = unsafe { first.add(b * stride).cast::<u16>().read_unaligned() };
    }
    let mut out = [0.0; 8];
    // SAFETY: F16C is there; both arrays have eight values.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(bits.as_ptr().cast()))) };
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
    unsafe { _mm256_cvtepu8_epi16(bytes16(at)) }
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

/// All bits set in the lanes whose bit of `bits` is set.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(super) unsafe fn lanes_of(bits: u16) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let one_each =
            _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, i16::MIN);
        _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16(bits as i16), one_each), one_each)
    }
}

/// `w * sub[2 b]` and `w * sub[2 b + 1]`.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(super) unsafe fn scaled(w: [__m256i; 2], head: &Head, b: usize) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        [
            _mm256_mullo_epi16(w[0], _mm256_set1_epi16(head.sub[2 * b])),
            _mm256_mullo_epi16(w[1], _mm256_set1_epi16(head.sub[2 * b + 1])),
        ]
    }
}
