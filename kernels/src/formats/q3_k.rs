//! Q3_K: 256 values, 110 bytes: `value = (d * (sc - 32)) * (q - 4)`, with 6-bit `sc` per 16 values.
//!
//! ```text
//! byte 0..32    bit 2 of q: bit k of byte j belongs to q[j + 32 k]
//!     32..96    bits 0..2 of q: 32 bytes per 128 values; byte j of them holds q[j], q[j + 32], q[j + 64], q[j + 96]
//!     96..104   bits 0..4 of sc: byte j holds sc[j] (low nibble) and sc[j + 8] (high nibble)
//!    104..108   bits 4..6 of sc: byte j holds sc[j], sc[j + 4], sc[j + 8], sc[j + 12]
//!    108..110   d, f16
//! ```

use cchaha_plan::Format;

use super::q2_k::two_bits;
use super::{BlockFormat, NO_OFFSET, f16_at};

/// See the file's header.
pub struct Q3K;

impl BlockFormat for Q3K {
    const FORMAT: Format = Format::Q3_K;
    const SUB: usize = 16;

    #[inline]
    fn unpack(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        let q = &mut q[..256];
        two_bits(&block[32..96], q);
        for (k, q) in q.chunks_exact_mut(32).enumerate() {
            for (q, &byte) in q.iter_mut().zip(&block[..32]) {
                *q += ((byte >> k & 1) << 2) as i8 - 4;
            }
        }
        let d = f16_at(block, 108);
        let (low, high) = (&block[96..104], &block[104..108]);
        for s in 0..16 {
            let sc = (low[s % 8] >> (4 * (s / 8)) & 15) | (high[s % 4] >> (2 * (s / 4)) & 3) << 4;
            scale[s] = d * f32::from(sc as i8 - 32);
            offset[s] = NO_OFFSET;
        }
    }
}
