//! Q2_K: 256 values, 84 bytes: `value = (d * sc) * q - (dmin * m)`, with 4-bit `sc` and `m` per 16 values.
//!
//! ```text
//! byte 0..16    sc (low nibble) and m (high nibble) of 16 runs of 16 values
//!     16..80    q, 2 bits: 32 bytes per 128 values; byte j of them holds q[j], q[j + 32], q[j + 64], q[j + 96]
//!     80..82    d, f16
//!     82..84    dmin, f16
//! ```

use cchaha_plan::Format;

use super::{BlockFormat, f16_at};

/// See the file's header.
pub struct Q2K;

impl BlockFormat for Q2K {
    const FORMAT: Format = Format::Q2_K;
    const SUB: usize = 16;

    #[inline]
    fn unpack(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        two_bits(&block[16..80], &mut q[..256]);
        let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
        for (s, &byte) in block[..16].iter().enumerate() {
            scale[s] = d * f32::from(byte & 15);
            offset[s] = -(dmin * f32::from(byte >> 4));
        }
    }
}

/// Spreads 64 bytes into 256 two-bit numbers; see the picture above.
#[inline]
pub(super) fn two_bits(bytes: &[u8], q: &mut [i8]) {
    for (bytes, q) in bytes.chunks_exact(32).zip(q.chunks_exact_mut(128)) {
        for (part, q) in q.chunks_exact_mut(32).enumerate() {
            for (q, &byte) in q.iter_mut().zip(bytes) {
                *q = (byte >> (2 * part) & 3) as i8;
            }
        }
    }
}
