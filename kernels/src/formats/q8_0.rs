//! Q8_0: 32 values, 34 bytes: `value = d * q`.
//!
//! ```text
//! byte 0..2    d, f16
//!      2..34   q, i8
//! ```

use cchaha_plan::Format;

use super::{BlockFormat, NO_OFFSET, f16_at};

/// See the file's header.
pub struct Q8_0;

impl BlockFormat for Q8_0 {
    const FORMAT: Format = Format::Q8_0;
    const SUB: usize = 32;

    #[inline]
    fn unpack(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        for (q, &byte) in q[..32].iter_mut().zip(&block[2..34]) {
            *q = byte as i8;
        }
        scale[0] = f16_at(block, 0);
        offset[0] = NO_OFFSET;
    }
}
