//! Q5_K: 256 values, 176 bytes: `value = (d * sc) * q - (dmin * m)`, with 6-bit `sc` and `m` per 32 values.
//!
//! ```text
//! byte 0..16    d, dmin, sc and m as in Q4_K
//!     16..48    bit 4 of q: bit k of byte j belongs to q[j + 32 k]
//!     48..176   bits 0..4 of q: 32 bytes per 64 values; byte j of them holds q[j] (low) and q[j + 32] (high nibble)
//! ```

use cchaha_plan::Format;

use super::q4_k::scales_and_offsets;
use super::{BlockFormat, nibbles};

/// See the file's header.
pub struct Q5K;

impl BlockFormat for Q5K {
    const FORMAT: Format = Format::Q5_K;
    const SUB: usize = 32;

    #[inline]
    fn unpack(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        let q = &mut q[..256];
        for (bytes, q) in block[48..176].chunks_exact(32).zip(q.chunks_exact_mut(64)) {
            nibbles(bytes, q, |nibble| nibble as i8);
        }
        for (k, q) in q.chunks_exact_mut(32).enumerate() {
            for (q, &byte) in q.iter_mut().zip(&block[16..48]) {
                *q += ((byte >> k & 1) << 4) as i8;
            }
        }
        scales_and_offsets(&block[..16], scale, offset);
    }
}
