//! F16: IEEE 754 binary16, little-endian. Every value is exact in f32.
//!
//! ```text
//! byte 0..2   value: sign 1, exponent 5, fraction 10 bits
//! ```

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Values converted together, so that the machine's own conversion is looked for once and not for each.
const TOGETHER: usize = 64;

pub(super) fn dequantize(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.chunks(2 * TOGETHER).zip(out.chunks_mut(TOGETHER)) {
        let mut halves = [f16::ZERO; TOGETHER];
        for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
            *half = f16::from_le_bytes(*bytes);
        }
        halves[..out.len()].convert_to_f32_slice(out);
    }
}
