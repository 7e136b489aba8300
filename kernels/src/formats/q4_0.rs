//! Q4_0: 32 values, 18 bytes: `value = d * (q - 8)`.
//!
//! ```text
//! byte 0..2    d, f16
//!      2..18   q: byte j holds q[j] (low nibble) and q[j + 16] (high nibble)
//! ```

use cchaha_plan::Format;

use super::{BlockFormat, NO_OFFSET, f16_at, nibbles};

/// See the file's header.
pub struct Q4_0;

impl BlockFormat for Q4_0 {
    const FORMAT: Format = Format::Q4_0;
    const SUB: usize = 32;

    #[inline]
    fn unpack(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        nibbles(&block[2..18], &mut q[..32], |nibble| nibble as i8 - 8);
        scale[0] = f16_at(block, 0);
        offset[0] = NO_OFFSET;
    }
}
