//! F16: IEEE 754 binary16, little-endian. Every value is exact in f32.
//!
//! ```text
//! byte 0..2   value: sign 1, exponent 5, fraction 10 bits
//! ```

pub(super) fn dequantize(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks().0.iter().zip(out) {
        *out = half::f16::from_le_bytes(*bytes).to_f32();
    }
}
