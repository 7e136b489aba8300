//! IQ4_NL: 32 values, 18 bytes: `value = d * CODEBOOK[index]`, a non-linear 4-bit code.
//!
//! ```text
//! byte 0..2    d, f16
//!      2..18   indices: byte j holds index[j] (low nibble) and index[j + 16] (high nibble)
//! ```

use cchaha_plan::Format;

use super::{BlockFormat, NO_OFFSET, f16_at, nibbles};

/// See the file's header.
pub struct Iq4Nl;

/// The integers the 16 indices of IQ4_NL and IQ4_XS stand for.
pub(crate) const CODEBOOK: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl BlockFormat for Iq4Nl {
    const FORMAT: Format = Format::IQ4_NL;
    const SUB: usize = 32;

    #[inline]
    fn unpack(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        nibbles(&block[2..18], &mut q[..32], |nibble| CODEBOOK[usize::from(nibble)]);
        scale[0] = f16_at(block, 0);
        offset[0] = NO_OFFSET;
    }
}
