//! Encoders: how numbers become the bytes of a weight.
//!
//! What is minimized is `sum_i w_i (x_i - decoded_i)^2`, with `w_i` the importance of each column to the power of 23/32, or all
//! ones. Every encoder is written once over [`Simd`](crate::simd::Simd) and bound per instruction set; all bindings give the
//! same bytes.
//!
//! | family | formats | file |
//! |---|---|---|
//! | plain | F32 F16 BF16 | `plain.rs` |
//! | `d * level` | Q4_0 Q5_0 Q8_0 IQ4_NL MXFP4 | `scaled.rs` |
//! | `d * q + m` | Q4_1 Q5_1 | `offset.rs` |
//! | `(d * sc) * level` | Q3_K Q6_K IQ4_XS | `nested.rs` |
//! | `(d * sc) * q - (dmin * m)` | Q2_K Q4_K Q5_K | `nested_offset.rs` |
//!
//! To add a format: its family's trait in its family's file, a line in `x86_64/avx2/encode.rs` and in
//! `aarch64/neon/encode.rs`, a row in the table here.

mod nested;
mod nested_offset;
mod offset;
mod plain;
mod scaled;
mod search;

use std::fmt;

use cchaha_plan::Format;

#[cfg(target_arch = "aarch64")]
use crate::aarch64::neon;
use crate::isa::Isa;
use crate::simd::{LANES, Portable, Simd};
#[cfg(target_arch = "x86_64")]
use crate::x86_64::avx2;

pub(crate) use nested::{Iq4Xs, Q3K, Q6K};
pub(crate) use nested_offset::{Q2K, Q4K, Q5K};
pub(crate) use offset::{Q4_1, Q5_1};
pub(crate) use plain::{Bf16, F16, F32};
pub(crate) use scaled::{Iq4Nl, Mxfp4, Q4_0, Q5_0, Q8_0};

/// The largest magnitude a weight may have in formats with f16 scales: that of f16 itself.
const MAX_F16: f32 = 65504.0;

/// Encodes `x`, whole rows of a matrix, into blocks: `(values, importance of each, bytes)`.
type Encode = fn(&[f32], Option<&[f32]>, &mut [u8]);

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    /// What it makes.
    pub format: Format,
    /// Instructions it needs.
    pub isa: Isa,
    run: Encode,
}

/// A way to encode one block.
pub(crate) trait BlockEncoder {
    /// What it makes.
    const FORMAT: Format;
    /// Encodes `block_len` finite values with their weights, all positive, into `block_bytes` bytes.
    fn block<S: Simd>(s: S, x: &[f32], w: &[f32], out: &mut [u8]);
}

/// Encodes blocks one after the other; `w` has one weight per value.
#[inline(always)]
pub(crate) fn blocks<S: Simd, E: BlockEncoder>(s: S, x: &[f32], w: Option<&[f32]>, out: &mut [u8]) {
    let (len, size) = (E::FORMAT.block_len(), E::FORMAT.block_bytes());
    let mut weights = [1.0; crate::formats::MAX_BLOCK_LEN];
    for (i, (x, out)) in x.chunks_exact(len).zip(out.chunks_exact_mut(size)).enumerate() {
        if let Some(w) = w {
            weigh(&w[i * len..][..len], &mut weights[..len]);
        }
        E::block(s, x, &weights[..len], out);
    }
}

/// `importance^(23/32)`. Importance is measured on a text that is not the one the model will see, so what it says is
/// believed in part: the columns it finds unimportant still count for something. With this power both the weighted and
/// the plain error stay below those of ggml's encoders on real tensors. Square roots are the same on every machine.
#[inline(always)]
fn temper(importance: f32) -> f32 {
    let half = importance.sqrt();
    let eighth = half.sqrt().sqrt();
    let sixteenth = eighth.sqrt();
    half * eighth * sixteenth * sixteenth.sqrt()
}

/// The weights of a block: relative to their mean, and never so small that a value does not count at all.
#[inline(always)]
fn weigh(importance: &[f32], weights: &mut [f32]) {
    let mean = importance.iter().sum::<f32>() / importance.len() as f32;
    if !(mean > f32::MIN_POSITIVE && mean.is_finite()) {
        weights.fill(1.0);
        return;
    }
    for (weight, importance) in weights.iter_mut().zip(importance) {
        *weight = (importance / mean).max(1e-4);
    }
}

macro_rules! encoders {
    ($($format:ident, $encoder:ident, $simd:ident;)*) => {
        /// Every encoder, in order of preference.
        const ENCODERS: &[Encoder] = &[
            $(
                #[cfg(target_arch = "x86_64")]
                Encoder { format: Format::$format, isa: Isa::Avx2, run: avx2::encode::$simd },
                #[cfg(target_arch = "aarch64")]
                Encoder { format: Format::$format, isa: Isa::Neon, run: neon::encode::$simd },
            )*
            $(Encoder {
                format: Format::$format,
                isa: Isa::Generic,
                run: |x, w, out| blocks::<Portable, $encoder>(Portable, x, w, out),
            },)*
        ];
    };
}

encoders! {
    F32, F32, f32;
    F16, F16, f16;
    BF16, Bf16, bf16;
    Q4_0, Q4_0, q4_0;
    Q4_1, Q4_1, q4_1;
    Q5_0, Q5_0, q5_0;
    Q5_1, Q5_1, q5_1;
    Q8_0, Q8_0, q8_0;
    Q2_K, Q2K, q2_k;
    Q3_K, Q3K, q3_k;
    Q4_K, Q4K, q4_k;
    Q5_K, Q5K, q5_k;
    Q6_K, Q6K, q6_k;
    IQ4_NL, Iq4Nl, iq4_nl;
    IQ4_XS, Iq4Xs, iq4_xs;
    MXFP4, Mxfp4, mxfp4;
}

/// Every encoder, in order of preference.
pub fn encoders() -> &'static [Encoder] {
    ENCODERS
}

/// Why values cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EncodeError {
    /// A value is infinite or NaN.
    NotFinite {
        /// Which one.
        index: usize,
    },
    /// A value is larger than the format holds.
    TooLarge {
        /// Which one.
        index: usize,
        /// The value.
        value: f32,
        /// The format.
        format: Format,
    },
    /// An importance is negative, infinite or NaN.
    Importance {
        /// Of which column.
        column: usize,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodeError::NotFinite { index } => {
                write!(f, "value {index} is infinite or not a number, which no quantized format holds")
            }
            EncodeError::TooLarge { index, value, format } => write!(
                f,
                "value {index} is {value:e}, more than the {MAX_F16} that {format} holds; keep this tensor in BF16 or F32"
            ),
            EncodeError::Importance { column } => {
                write!(f, "the importance of column {column} is not a number of 0 or more")
            }
        }
    }
}

impl std::error::Error for EncodeError {}

impl Encoder {
    /// The best encoder of a format that needs no instructions beyond `isa`.
    pub fn of(format: Format, isa: Isa) -> Encoder {
        let fits = |row: &&Encoder| row.format == format && row.isa <= isa && row.isa.available();
        *ENCODERS.iter().find(fits).expect("invariant: every format has a portable row, as the tests check")
    }

    /// Encodes rows of `importance.len()` values (of any length where there is no importance) into
    /// `format.row_bytes(x.len())` bytes.
    ///
    /// # Errors
    /// Where a value cannot be stored; F32 and BF16 store every finite value, and the others those up to 65504.
    ///
    /// # Panics
    /// Where `x` is no whole number of blocks and rows, or `out` has another length than they take.
    pub fn encode(&self, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) -> Result<(), EncodeError> {
        assert_eq!(
            self.format.row_bytes(x.len()),
            Some(out.len()),
            "storage of {} {} values",
            x.len(),
            self.format
        );
        self.check(x)?;
        let Some(importance) = importance else {
            (self.run)(x, None, out);
            return Ok(());
        };
        if let Some(column) = importance.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
            return Err(EncodeError::Importance { column });
        }
        let row_bytes = self.format.row_bytes(importance.len()).expect("rows of whole blocks");
        assert!(x.len().is_multiple_of(importance.len()), "whole rows");
        let weights: Vec<f32> = importance.iter().map(|&w| temper(w)).collect();
        for (x, out) in x.chunks_exact(weights.len()).zip(out.chunks_exact_mut(row_bytes)) {
            (self.run)(x, Some(&weights), out);
        }
        Ok(())
    }

    fn check(&self, x: &[f32]) -> Result<(), EncodeError> {
        let any = matches!(self.format, Format::F32 | Format::BF16 | Format::MXFP4);
        let limit = if any { f32::MAX } else { MAX_F16 };
        // One pass without branches; NaN is not below the limit either.
        if x.iter().fold(true, |fine, x| fine & (x.abs() <= limit)) {
            return Ok(());
        }
        let (index, &value) = x
            .iter()
            .enumerate()
            .find(|(_, x)| x.is_nan() || x.abs() > limit)
            .expect("invariant: one was found");
        Err(if value.is_finite() {
            EncodeError::TooLarge { index, value, format: self.format }
        } else {
            EncodeError::NotFinite { index }
        })
    }
}

/// The nearest f16, as f32; `x` is at most [`MAX_F16`].
#[inline(always)]
fn to_f16(x: f32) -> f32 {
    half::f16::from_f32_const(x).to_f32_const()
}

/// Writes an f16 that [`to_f16`] made.
#[inline(always)]
fn put_f16(out: &mut [u8], at: usize, x: f32) {
    out[at..at + 2].copy_from_slice(&half::f16::from_f32_const(x).to_le_bytes());
}

/// Two nibbles per byte: the first half of the values low, the second half high.
#[inline(always)]
fn put_nibbles(q: &[u8], out: &mut [u8]) {
    let (low, high) = q.split_at(out.len());
    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
        *out = low & 15 | high << 4;
    }
}

/// Least and greatest of a run of values.
#[inline(always)]
fn range<S: Simd>(s: S, x: &[f32]) -> (f32, f32) {
    let (mut least, mut greatest) = (s.splat(f32::INFINITY), s.splat(f32::NEG_INFINITY));
    for x in x.as_chunks::<LANES>().0 {
        let x = s.load(x);
        least = s.min(least, x);
        greatest = s.max(greatest, x);
    }
    (0.0 - s.largest(s.sub(s.splat(0.0), least)), s.largest(greatest))
}

/// The value of the largest magnitude, of equals the positive one.
#[inline(always)]
fn extreme<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (least, greatest) = range(s, x);
    if greatest >= -least { greatest } else { least }
}

/// Whole numbers held in f32 as bytes, with `bias` added.
#[inline(always)]
fn to_bytes(q: &[f32], bias: f32, out: &mut [u8]) {
    // 1.5 * 2^23: added to a small whole number it leaves that number in the low bits, negative ones as complements.
    const SHIFT: f32 = 12_582_912.0;
    for (out, q) in out.iter_mut().zip(q) {
        *out = (q + bias + SHIFT).to_bits() as u8;
    }
}

/// Calls `$bind! { name = encoder; ... }` with every encoder.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! each_encoder {
    ($bind:ident) => {
        $bind! {
            f32 = F32;
            f16 = F16;
            bf16 = Bf16;
            q4_0 = Q4_0;
            q4_1 = Q4_1;
            q5_0 = Q5_0;
            q5_1 = Q5_1;
            q8_0 = Q8_0;
            q2_k = Q2K;
            q3_k = Q3K;
            q4_k = Q4K;
            q5_k = Q5K;
            q6_k = Q6K;
            iq4_nl = Iq4Nl;
            iq4_xs = Iq4Xs;
            mxfp4 = Mxfp4;
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use each_encoder;

#[cfg(test)]
mod tests {
    use cchaha_plan::FORMATS;

    use super::*;

    #[test]
    fn every_format_has_a_portable_encoder() {
        for row in FORMATS {
            let fits = |encoder: &&Encoder| encoder.format == row.format && encoder.isa == Isa::Generic;
            assert_eq!(ENCODERS.iter().filter(fits).count(), 1, "{}", row.name);
        }
    }
}
