//! Storage formats: how the bytes of a weight become numbers.
//!
//! One idea carries every quantized format. A block is small integers `q` with one f32 scale and offset per run of
//! `SUB` values:
//!
//! ```text
//! value[i] = scale[i / SUB] * q[i] + offset[i / SUB]        q fits i8, SUB is 16 or 32
//! ```
//!
//! The product is rounded to f32, then the sum is (never fused): in this order the values are bit for bit those of
//! ggml and of PyPI `gguf`. So a format is one function, [`BlockFormat::unpack`]; dequantization and the portable
//! kernels derive from it. A format without offsets has `-0.0` there, the one number that changes no sum.
//!
//! To add a format: one file here, one row in [`OPS`], one row in [`cchaha_plan::FORMATS`].

mod bfloat16;
mod float16;
mod float32;
mod iq4_nl;
mod iq4_xs;
mod mxfp4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;

use cchaha_plan::{FORMATS, Format};

pub(crate) use iq4_nl::CODEBOOK;
pub use iq4_nl::Iq4Nl;
pub use iq4_xs::Iq4Xs;
pub use mxfp4::Mxfp4;
pub(crate) use mxfp4::{E2M1_DOUBLED, half_scale};
pub use q2_k::Q2K;
pub use q3_k::Q3K;
pub use q4_0::Q4_0;
pub use q4_1::Q4_1;
pub use q4_k::Q4K;
pub use q5_0::Q5_0;
pub use q5_1::Q5_1;
pub use q5_k::Q5K;
pub use q6_k::Q6K;
pub use q8_0::Q8_0;

/// Values in the longest block.
pub const MAX_BLOCK_LEN: usize = 256;

/// Runs with their own scale in the longest block.
pub const MAX_SUBS: usize = 16;

/// The offset of a format that has none: `x + -0.0` is `x` for every `x`, signed zeros included.
const NO_OFFSET: f32 = -0.0;

/// A quantized format.
pub trait BlockFormat {
    /// Its row in the format table.
    const FORMAT: Format;
    /// Values that share a scale and an offset: 16 or 32.
    const SUB: usize;

    /// Splits one block of `block_bytes` bytes into `block_len` integers and `block_len / SUB` scales and offsets,
    /// with `value[i] = scale[i / SUB] * q[i] + offset[i / SUB]`.
    ///
    /// # Panics
    /// Where a slice has another length.
    fn unpack(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]);
}

/// [`BlockFormat::unpack`] as a value: `(block, q, scale, offset)`.
pub type Unpack = fn(&[u8], &mut [i8], &mut [f32], &mut [f32]);

/// [`BlockFormat`] as values, for code that learns the format at run time.
#[derive(Clone, Copy, Debug)]
pub struct BlockOps {
    /// [`BlockFormat::SUB`].
    pub sub: usize,
    /// [`BlockFormat::unpack`].
    pub unpack: Unpack,
}

/// What can be done with a format; one row of [`OPS`].
#[derive(Clone, Copy, Debug)]
pub struct FormatOps {
    /// The format this row describes.
    pub format: Format,
    /// Dequantizes whole blocks: `out.len()` values from `out.len() / block_len * block_bytes` bytes.
    pub dequantize: fn(bytes: &[u8], out: &mut [f32]),
    /// The block structure; `None` for F32, F16 and BF16, whose values stand alone.
    pub blocks: Option<BlockOps>,
}

/// Every format, in the order of [`Format`].
pub const OPS: [FormatOps; FORMATS.len()] = [
    plain(Format::F32, float32::dequantize),
    plain(Format::F16, float16::dequantize),
    plain(Format::BF16, bfloat16::dequantize),
    blocks::<Q4_0>(),
    blocks::<Q4_1>(),
    blocks::<Q5_0>(),
    blocks::<Q5_1>(),
    blocks::<Q8_0>(),
    blocks::<Q2K>(),
    blocks::<Q3K>(),
    blocks::<Q4K>(),
    blocks::<Q5K>(),
    blocks::<Q6K>(),
    blocks::<Iq4Nl>(),
    blocks::<Iq4Xs>(),
    blocks::<Mxfp4>(),
];

const fn plain(format: Format, dequantize: fn(&[u8], &mut [f32])) -> FormatOps {
    FormatOps { format, dequantize, blocks: None }
}

const fn blocks<F: BlockFormat>() -> FormatOps {
    let blocks = BlockOps { sub: F::SUB, unpack: F::unpack };
    FormatOps { format: F::FORMAT, dequantize: dequantize_blocks::<F>, blocks: Some(blocks) }
}

/// The table row of `format`.
pub fn ops(format: Format) -> &'static FormatOps {
    static TABLE: [FormatOps; FORMATS.len()] = OPS;
    &TABLE[format as usize]
}

/// Dequantizes `out.len()` values, a whole number of blocks.
///
/// # Panics
/// Where `bytes` is not exactly the storage of `out.len()` values.
pub fn dequantize(format: Format, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(format.row_bytes(out.len()), Some(bytes.len()), "storage of {} {format} values", out.len());
    (ops(format).dequantize)(bytes, out);
}

fn dequantize_blocks<F: BlockFormat>(bytes: &[u8], out: &mut [f32]) {
    let (len, size) = (F::FORMAT.block_len(), F::FORMAT.block_bytes());
    let (mut q, mut scale, mut offset) = ([0; MAX_BLOCK_LEN], [0.0; MAX_SUBS], [0.0; MAX_SUBS]);
    let (q, scale, offset) = (&mut q[..len], &mut scale[..len / F::SUB], &mut offset[..len / F::SUB]);
    for (block, out) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(len)) {
        F::unpack(block, q, scale, offset);
        for (s, (out, q)) in out.chunks_exact_mut(F::SUB).zip(q.chunks_exact(F::SUB)).enumerate() {
            for (out, &q) in out.iter_mut().zip(q) {
                *out = scale[s] * f32::from(q) + offset[s];
            }
        }
    }
}

/// The little-endian f16 at `at`.
#[inline]
fn f16_at(block: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The nibbles of `bytes`: all the low ones, then all the high ones, each mapped through `f`.
#[inline]
fn nibbles(bytes: &[u8], q: &mut [i8], f: impl Fn(u8) -> i8) {
    let (low, high) = q.split_at_mut(bytes.len());
    for ((&byte, low), high) in bytes.iter().zip(low).zip(high) {
        *low = f(byte & 15);
        *high = f(byte >> 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_at_their_own_index_and_fit_the_stack_buffers() {
        for (index, row) in OPS.iter().enumerate() {
            assert_eq!(row.format as usize, index);
            let len = row.format.block_len();
            match row.blocks {
                None => assert_eq!(len, 1),
                Some(blocks) => {
                    assert!(matches!(blocks.sub, 16 | 32));
                    assert!(len <= MAX_BLOCK_LEN && len / blocks.sub <= MAX_SUBS);
                }
            }
        }
    }
}
