//! Q4_K: 256 values, 144 bytes: `value = (d * sc) * q - (dmin * m)`, with 6-bit `sc` and `m` per 32 values.
//!
//! ```text
//! byte 0..2     d, f16
//!      2..4     dmin, f16
//!      4..8     bits 0..6: sc[0..4];   bits 6..8: bits 4..6 of sc[4..8]
//!      8..12    bits 0..6: m[0..4];    bits 6..8: bits 4..6 of m[4..8]
//!     12..16    bits 0..4: bits 0..4 of sc[4..8];   bits 4..8: bits 0..4 of m[4..8]
//!     16..144   q: 32 bytes per 64 values; byte j of them holds q[j] (low nibble) and q[j + 32] (high nibble)
//! ```

use cchaha_plan::Format;

use super::{BlockFormat, f16_at, nibbles};

/// See the file's header.
pub struct Q4K;

impl BlockFormat for Q4K {
    const FORMAT: Format = Format::Q4_K;
    const SUB: usize = 32;

    #[inline]
    fn unpack(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        for (bytes, q) in block[16..144].chunks_exact(32).zip(q[..256].chunks_exact_mut(64)) {
            nibbles(bytes, q, |nibble| nibble as i8);
        }
        scales_and_offsets(&block[..16], scale, offset);
    }
}

/// The first 16 bytes of Q4_K and Q5_K blocks.
#[inline]
pub(super) fn scales_and_offsets(head: &[u8], scale: &mut [f32], offset: &mut [f32]) {
    let (d, dmin) = (f16_at(head, 0), f16_at(head, 2));
    let (scs, ms, low) = (&head[4..8], &head[8..12], &head[12..16]);
    for j in 0..4 {
        let (sc, m) = (scs[j] & 63, ms[j] & 63);
        scale[j] = d * f32::from(sc);
        offset[j] = -(dmin * f32::from(m));
        let (sc, m) = ((low[j] & 15) | (scs[j] >> 6) << 4, (low[j] >> 4) | (ms[j] >> 6) << 4);
        scale[j + 4] = d * f32::from(sc);
        offset[j + 4] = -(dmin * f32::from(m));
    }
}
