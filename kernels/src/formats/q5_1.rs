//! Q5_1: 32 values, 24 bytes: `value = d * q + m`.
//!
//! ```text
//! byte 0..2    d, f16
//!      2..4    m, f16
//!      4..8    bit 4 of every q: bit j of the u32 belongs to q[j]
//!      8..24   bits 0..4: byte j holds q[j] (low nibble) and q[j + 16] (high nibble)
//! ```

use cchaha_plan::Format;

use super::q5_0::add_fifth_bits;
use super::{BlockFormat, f16_at, nibbles};

/// See the file's header.
pub struct Q5_1;

impl BlockFormat for Q5_1 {
    const FORMAT: Format = Format::Q5_1;
    const SUB: usize = 32;

    #[inline]
    fn unpack(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        let q = &mut q[..32];
        nibbles(&block[8..24], q, |nibble| nibble as i8);
        add_fifth_bits(&block[4..8], q);
        scale[0] = f16_at(block, 0);
        offset[0] = f16_at(block, 2);
    }
}
