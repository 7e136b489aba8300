//! MXFP4: 32 values, 17 bytes: `value = 2^(e - 127) * E2M1[index]` (OCP Microscaling Formats specification v1.0).
//!
//! ```text
//! byte 0      e: the shared power of two (E8M0)
//!      1..17  indices: byte j holds index[j] (low nibble) and index[j + 16] (high nibble)
//! ```
//!
//! The E2M1 numbers are 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives. To stay integers they are doubled here and
//! the scale is halved. The specification's NaN (`e` = 255) is read as 2^128, as ggml does; and as in ggml the
//! negative zero is plain zero.

use cchaha_plan::Format;

use super::{BlockFormat, NO_OFFSET, nibbles};

/// See the file's header.
pub struct Mxfp4;

pub(crate) const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// `2^(e - 128)`: subnormal for the two smallest exponents.
#[inline]
pub(crate) fn half_scale(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { u32::from(e - 1) << 23 })
}

impl BlockFormat for Mxfp4 {
    const FORMAT: Format = Format::MXFP4;
    const SUB: usize = 32;

    #[inline]
    fn unpack(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        nibbles(&block[1..17], &mut q[..32], |nibble| E2M1_DOUBLED[usize::from(nibble)]);
        scale[0] = half_scale(block[0]);
        offset[0] = NO_OFFSET;
    }
}
