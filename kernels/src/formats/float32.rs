//! F32: IEEE 754 binary32, little-endian.
//!
//! ```text
//! byte 0..4   value
//! ```

pub(super) fn dequantize(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks().0.iter().zip(out) {
        *out = f32::from_le_bytes(*bytes);
    }
}
