//! What a quantized format tells the matrix loop: how to turn 32 values into one vector of bytes.
//!
//! No closures around intrinsics here and in the formats: with them Q6_K ran twenty times slower (0.3 GB/s), probably
//! because a closure that is not inlined is compiled without AVX2.
//!
//! Zen has two shuffle ports for four vector pipes, and the optimizer spends them freely: it turns a load that broadcasts
//! into a load and a shuffle. [`opaque`] hides values from it where that cost up to half the speed.

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::LazyLock;

use cchaha_plan::Format;

/// Scales and offsets of a group of 256 values.
#[derive(Clone, Copy)]
pub(in crate::x86_64) struct Head {
    /// Scales: of every block of 32, or, where there are integer scales, the same one that those are multiplied by.
    pub(in crate::x86_64) scale: [f32; 8],
    /// Offsets per 32 or per 16 values; see [`Weights::OFFSETS`].
    pub(in crate::x86_64) offset: [f32; 16],
    /// Integer scales; see [`Sub`].
    pub(in crate::x86_64) sub: [i16; 16],
}

impl Head {
    pub(in crate::x86_64) const EMPTY: Head = Head { scale: [0.0; 8], offset: [0.0; 16], sub: [0; 16] };
}

/// Integer scales of a format.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::x86_64) enum Sub {
    /// None.
    None,
    /// One per run of 32 values, twice in [`Head::sub`], so that one load broadcasts it.
    Runs,
    /// One per 16 values.
    Halves,
}

/// A format, 256 values at a time.
///
/// ```text
/// value = scale * sub[..] * q + offset[..],   without integer scales scale[..] * q + offset[..]
/// ```
pub(in crate::x86_64) trait Weights {
    const FORMAT: Format;
    /// Whether `q` is an i8. If not it is a u8 of at most 63, so that two products with an i8 fit 16 bits.
    const SIGNED: bool;
    /// The largest `|q|`.
    const MOST: u8;
    /// `q` of the value 0, where offsets only say that.
    const ZERO: u8 = 0;
    /// Integer scales.
    const SUB: Sub;
    /// Offsets in a group: 0, 8 (per 32 values) or 16 (per 16 values).
    const OFFSETS: usize;
    /// Bytes of a group.
    const BYTES: usize = 256 / Self::FORMAT.block_len() * Self::FORMAT.block_bytes();

    /// Scales and offsets of `blocks` (1 to 8) runs of 32 values; zeros after them.
    ///
    /// # Safety
    /// AVX2, and `group` points at that many.
    unsafe fn head(group: *const u8, blocks: usize) -> Head;

    /// `q` of run `b` of 32 values.
    ///
    /// # Safety
    /// AVX2, and `group` holds run `b`.
    unsafe fn load(group: *const u8, b: usize) -> __m256i;
}

/// Bytes between what is read and what is asked for: 8192 where the first cache has 48 KiB, else 4096.
///
/// Tokens/s of decoding with two threads by distance. AMD EPYC Zen 5 (48 KiB, 83 GB/s, AVX-512, 2026-11), Qwen2.5-Coder-0.5B Q4_K_M, medians of four: packed rows
/// that do not ask, and 2048, 101, 4096 121 to 131, 8192 137, 12288 134. EPYC Zen 4 (32 KiB, 35 GB/s, AVX2, 2026-11), three turns: Q8_0 as stored 4096
/// 43, 54 and 53, 8192 39, 45 and 43, 2048 and 16384 between them; the 1.5B Q4_K_M, packed, 4096 20, 26 and 26, 8192 17, 24 and 25.
static AHEAD: LazyLock<usize> = LazyLock::new(|| if first_cache() >= 48 << 10 { 8192 } else { 4096 });

/// Bytes of the first data cache, 0 where the processor does not say.
fn first_cache() -> usize {
    // Intel's leaf and AMD's, which read alike.
    let leaves =
        [(0, 4), (0x8000_0000, 0x8000_001d)].into_iter().filter(|(top, leaf)| __cpuid(*top).eax >= *leaf);
    let caches = leaves.flat_map(|(_, leaf)| (0..8).map(move |i| __cpuid_count(leaf, i)));
    let first = caches.into_iter().find(|cache| cache.eax & 0x1f == 1 && cache.eax >> 5 & 7 == 1);
    first.map_or(0, |cache| {
        let field = |shift: u32, bits: u32| (cache.ebx >> shift & ((1 << bits) - 1)) as usize + 1;
        field(22, 10) * field(12, 10) * field(0, 12) * (cache.ecx as usize + 1)
    })
}

/// Asks for so many bytes some way behind `at`, before they are read: the hardware's own requests stop where a page of memory does.
///
/// # Safety
/// SSE.
#[inline(always)]
pub(in crate::x86_64) unsafe fn ahead(at: *const u8, bytes: usize) {
    let distance = *AHEAD;
    for line in 0..bytes.div_ceil(64) {
        // SAFETY: the caller's promise; any address may be asked for.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(distance + 64 * line).cast()) };
    }
}

/// `x`, of which the optimizer knows nothing from here on.
///
/// # Safety
/// AVX2.
#[inline]
#[target_feature(enable = "avx2")]
pub(in crate::x86_64) unsafe fn opaque(mut x: __m256i) -> __m256i {
    // SAFETY: no instruction is emitted.
    unsafe { asm!("/* {0} */", inout(ymm_reg) x, options(pure, nomem, nostack, preserves_flags)) };
    x
}

/// `n`, of which the optimizer knows nothing.
#[inline(always)]
pub(in crate::x86_64) fn opaque_count(mut n: usize) -> usize {
    // SAFETY: no instruction is emitted.
    unsafe { asm!("/* {0} */", inout(reg) n, options(pure, nomem, nostack, preserves_flags)) };
    n
}

/// The f16 at the start of `blocks` blocks of `stride` bytes, as f32; zeros after them.
///
/// # Safety
/// AVX2 and F16C, and the blocks are readable.
#[inline(always)]
pub(in crate::x86_64) unsafe fn halves(first: *const u8, stride: usize, blocks: usize) -> [f32; 8] {
    // Collected in general registers, which leaves the vector pipes to the products. Broadcasting and converting each
    // f16 where it is used took 1.4 times as long for all of Q5_0.
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

/// Scales, and the offset `-zero` scales, of blocks that start with an f16 and whose `q` is `zero` for the value 0.
///
/// # Safety
/// As for [`halves`].
#[inline(always)]
pub(in crate::x86_64) unsafe fn around(zero: u8, first: *const u8, stride: usize, blocks: usize) -> Head {
    // SAFETY: the caller's promise.
    let mut head = Head { scale: unsafe { halves(first, stride, blocks) }, ..Head::EMPTY };
    for b in 0..8 {
        head.offset[b] = -f32::from(zero) * head.scale[b];
    }
    head
}

/// One f16.
///
/// # Safety
/// AVX2 and F16C, and two readable bytes.
#[inline(always)]
pub(in crate::x86_64) unsafe fn half(at: *const u8) -> f32 {
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
pub(in crate::x86_64) unsafe fn bytes16(at: *const u8) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe { _mm_loadu_si128(at.cast()) }
}

/// 32 bytes.
///
/// # Safety
/// AVX2; readable.
#[inline(always)]
pub(in crate::x86_64) unsafe fn bytes32(at: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_loadu_si256(at.cast()) }
}

/// 16 bytes, twice.
///
/// # Safety
/// AVX2; readable.
#[inline(always)]
pub(in crate::x86_64) unsafe fn doubled(at: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { opaque(_mm256_broadcastsi128_si256(bytes16(at))) }
}

/// The low nibbles of 16 bytes, then the high ones.
///
/// # Safety
/// AVX2; readable.
#[inline(always)]
pub(in crate::x86_64) unsafe fn nibbles(at: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let shifted = _mm256_srlv_epi32(doubled(at), _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4));
        _mm256_and_si256(shifted, _mm256_set1_epi8(15))
    }
}

/// The low (`which` 0) or high (1) nibble of every byte.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(in crate::x86_64) unsafe fn nibble(x: __m256i, which: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let x = if which == 0 { x } else { _mm256_srli_epi16::<4>(x) };
        _mm256_and_si256(x, _mm256_set1_epi8(15))
    }
}

/// The low, then the high nibbles of 16 bytes, through a table of 16 signed bytes.
///
/// # Safety
/// AVX2; readable.
#[inline(always)]
pub(in crate::x86_64) unsafe fn looked_up(at: *const u8, table: &[i8; 16]) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_shuffle_epi8(doubled(table.as_ptr().cast()), nibbles(at)) }
}

/// `mask` in the bytes whose bit is set among the 32 bits at `at`, 0 in the others.
///
/// # Safety
/// AVX2; readable.
#[inline(always)]
pub(in crate::x86_64) unsafe fn where_set(at: *const u8, mask: i8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let word = opaque(_mm256_set1_epi32(at.cast::<i32>().read_unaligned()));
        let eight_each =
            _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
        let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
        let bits = _mm256_and_si256(_mm256_shuffle_epi8(word, eight_each), bit);
        _mm256_and_si256(_mm256_cmpeq_epi8(bits, bit), _mm256_set1_epi8(mask))
    }
}

/// Bit `bit` of every byte, moved to bit `to`.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(in crate::x86_64) unsafe fn moved(x: __m256i, bit: usize, to: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_and_si256(shifted(x, to as i32 - bit as i32), _mm256_set1_epi8(1 << to)) }
}

/// `x` shifted in 16-bit lanes by up to 4 to the left, or, if `by` is negative, by up to 6 to the right. One instruction,
/// once inlined.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(in crate::x86_64) unsafe fn shifted(x: __m256i, by: i32) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        match by {
            4.. => _mm256_slli_epi16::<4>(x),
            3 => _mm256_slli_epi16::<3>(x),
            2 => _mm256_slli_epi16::<2>(x),
            1 => _mm256_slli_epi16::<1>(x),
            0 => x,
            -1 => _mm256_srli_epi16::<1>(x),
            -2 => _mm256_srli_epi16::<2>(x),
            -3 => _mm256_srli_epi16::<3>(x),
            -4 => _mm256_srli_epi16::<4>(x),
            -5 => _mm256_srli_epi16::<5>(x),
            _ => _mm256_srli_epi16::<6>(x),
        }
    }
}
