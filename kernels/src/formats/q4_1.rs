//! Q4_1: 32 values, 20 bytes: `value = d * q + m`.
//!
//! ```text
//! byte 0..2    d, f16
//!      2..4    m, f16
//!      4..20   q: byte j holds q[j] (low nibble) and q[j + 16] (high nibble)
//! ```

use cchaha_plan::Format;

use super::{BlockFormat, f16_at, nibbles};

/// See the file's header.
pub struct Q4_1;

impl BlockFormat for Q4_1 {
    const FORMAT: Format = Format::Q4_1;
    const SUB: usize = 32;

    #[inline]
    fn unpack(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        nibbles(&block[4..20], &mut q[..32], |nibble| nibble as i8);
        scale[0] = f16_at(block, 0);
        offset[0] = f16_at(block, 2);
    }
}
