//! BF16: the upper half of an IEEE 754 binary32, little-endian. Every value is exact in f32.
//!
//! ```text
//! byte 0..2   value: sign 1, exponent 8, fraction 7 bits
//! ```

pub(super) fn dequantize(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks().0.iter().zip(out) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    }
}
