//! Q6_K: 256 values, 210 bytes: `value = (d * sc) * (q - 32)`, with an i8 `sc` per 16 values.
//!
//! ```text
//! byte 0..128   bits 0..4 of q: 64 bytes per 128 values; byte j of them holds q[j] (low) and q[j + 64] (high nibble)
//!    128..192   bits 4..6 of q: 32 bytes per 128 values; byte j of them holds q[j], q[j + 32], q[j + 64], q[j + 96]
//!    192..208   sc, i8
//!    208..210   d, f16
//! ```

use cchaha_plan::Format;

use super::{BlockFormat, NO_OFFSET, f16_at, nibbles};

/// See the file's header.
pub struct Q6K;

impl BlockFormat for Q6K {
    const FORMAT: Format = Format::Q6_K;
    const SUB: usize = 16;

    #[inline]
    fn unpack(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        let (low, high) = (block[..128].chunks_exact(64), block[128..192].chunks_exact(32));
        for ((low, high), q) in low.zip(high).zip(q[..256].chunks_exact_mut(128)) {
            nibbles(low, q, |nibble| nibble as i8 - 32);
            for (part, q) in q.chunks_exact_mut(32).enumerate() {
                for (q, &byte) in q.iter_mut().zip(high) {
                    *q += ((byte >> (2 * part) & 3) << 4) as i8;
                }
            }
        }
        let d = f16_at(block, 208);
        for (s, &sc) in block[192..208].iter().enumerate() {
            scale[s] = d * f32::from(sc as i8);
            offset[s] = NO_OFFSET;
        }
    }
}
