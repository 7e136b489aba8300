//! IQ4_XS: 256 values, 136 bytes: `value = (d * (sc - 32)) * CODEBOOK[index]`, with 6-bit `sc` per 32 values and
//! the codebook of IQ4_NL.
//!
//! ```text
//! byte 0..2    d, f16
//!      2..4    bits 4..6 of sc: bits 2k..2k + 2 of the u16 belong to sc[k]
//!      4..8    bits 0..4 of sc: byte k holds sc[2k] (low nibble) and sc[2k + 1] (high nibble)
//!      8..136  indices: 16 bytes per 32 values; byte j of them holds index[j] (low) and index[j + 16] (high nibble)
//! ```

use cchaha_plan::Format;

use super::iq4_nl::CODEBOOK;
use super::{BlockFormat, NO_OFFSET, f16_at, nibbles};

/// See the file's header.
pub struct Iq4Xs;

impl BlockFormat for Iq4Xs {
    const FORMAT: Format = Format::IQ4_XS;
    const SUB: usize = 32;

    #[inline]
    fn unpack(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        for (bytes, q) in block[8..136].chunks_exact(16).zip(q[..256].chunks_exact_mut(32)) {
            nibbles(bytes, q, |nibble| CODEBOOK[usize::from(nibble)]);
        }
        let d = f16_at(block, 0);
        let high = u16::from_le_bytes([block[2], block[3]]);
        for k in 0..8 {
            let low = block[4 + k / 2] >> (4 * (k % 2)) & 15;
            let sc = low | ((high >> (2 * k) & 3) as u8) << 4;
            scale[k] = d * f32::from(sc as i8 - 32);
            offset[k] = NO_OFFSET;
        }
    }
}
