//! Q5_0: 32 values, 22 bytes: `value = d * (q - 16)`.
//!
//! ```text
//! byte 0..2    d, f16
//!      2..6    bit 4 of every q: bit j of the u32 belongs to q[j]
//!      6..22   bits 0..4: byte j holds q[j] (low nibble) and q[j + 16] (high nibble)
//! ```

use cchaha_plan::Format;

use super::{BlockFormat, NO_OFFSET, f16_at, nibbles};

/// See the file's header.
pub struct Q5_0;

impl BlockFormat for Q5_0 {
    const FORMAT: Format = Format::Q5_0;
    const SUB: usize = 32;

    #[inline]
    fn unpack(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        let q = &mut q[..32];
        nibbles(&block[6..22], q, |nibble| nibble as i8 - 16);
        add_fifth_bits(&block[2..6], q);
        scale[0] = f16_at(block, 0);
        offset[0] = NO_OFFSET;
    }
}

/// Adds 16 to `q[j]` where bit `j` of the little-endian u32 is set.
#[inline]
pub(super) fn add_fifth_bits(bytes: &[u8], q: &mut [i8]) {
    for (&byte, q) in bytes.iter().zip(q.chunks_exact_mut(8)) {
        for (j, q) in q.iter_mut().enumerate() {
            *q += ((byte >> j & 1) << 4) as i8;
        }
    }
}
