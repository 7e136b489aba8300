//! How blocks go into planes: the twins of the readers in `wgsl/formats`. Bits lie as `wgsl/lib/bits.wgsl` says.

use cchaha_plan::Format;

use crate::formats::{Layout, Pack, Plane, RUN, Unpacked};

const fn plane(runs: usize, bytes: usize) -> Plane {
    Plane { runs, bytes }
}

const BITS4: Plane = plane(1, 16);
const BITS2: Plane = plane(1, 8);
const BITS1: Plane = plane(1, 4);

const fn values(
    name: &'static str,
    formats: &'static [Format],
    module: &'static str,
    planes: &'static [Plane],
) -> Layout {
    Layout { name, formats, module, planes, pack: Pack::Values }
}

const fn blocks(
    name: &'static str,
    formats: &'static [Format],
    module: &'static str,
    planes: &'static [Plane],
    pack: fn(&Unpacked<'_>, &mut [&mut [u8]]),
) -> Layout {
    Layout { name, formats, module, planes, pack: Pack::Block(pack) }
}

/// Every layout; the first that accepts a format holds it. The last one holds any block format, so that a format with
/// nothing but its decoder already runs.
pub const LAYOUTS: &[Layout] = &[
    values("f32", &[Format::F32], "formats/f32", &[plane(1, 128)]),
    values("f16", &[Format::F16], "formats/f16", &[plane(1, 64)]),
    values("bf16", &[Format::BF16], "formats/bf16", &[plane(1, 64)]),
    blocks("q4_0", &[Format::Q4_0], "formats/q4_0", &[BITS4, plane(1, 2)], |b, p| {
        bits4(b, 8, p[0]);
        p[1].copy_from_slice(&b.bytes[..2]);
    }),
    blocks("q4_1", &[Format::Q4_1], "formats/q4_1", &[BITS4, plane(1, 4)], |b, p| {
        bits4(b, 0, p[0]);
        p[1].copy_from_slice(&b.bytes[..4]);
    }),
    blocks("q5_0", &[Format::Q5_0], "formats/q5_0", &[BITS4, BITS1, plane(1, 2)], |b, p| {
        bits5(b, 16, p);
        p[2].copy_from_slice(&b.bytes[..2]);
    }),
    blocks("q5_1", &[Format::Q5_1], "formats/q5_1", &[BITS4, BITS1, plane(1, 4)], |b, p| {
        bits5(b, 0, p);
        p[2].copy_from_slice(&b.bytes[..4]);
    }),
    blocks("q8_0", &[Format::Q8_0], "formats/q8_0", &[plane(1, 32), plane(1, 2)], |b, p| {
        bits8(b, p[0]);
        p[1].copy_from_slice(&b.bytes[..2]);
    }),
    blocks("q2_k", &[Format::Q2_K], "formats/q2_k", &[BITS2, plane(1, 4), plane(8, 4)], |b, p| {
        low2(b, 0, p[0]);
        for (out, &byte) in p[1].chunks_exact_mut(2).zip(&b.bytes[..16]) {
            out.copy_from_slice(&[byte & 15, byte >> 4]);
        }
        p[2].copy_from_slice(&b.bytes[80..84]);
    }),
    blocks("q3_k", &[Format::Q3_K], "formats/q3_k", &[BITS2, BITS1, plane(1, 2), plane(8, 4)], |b, p| {
        low2(b, 4, p[0]);
        one_bit(b, 4, 2, p[1]);
        let (low, high) = (&b.bytes[96..104], &b.bytes[104..108]);
        for (s, out) in p[2].iter_mut().enumerate() {
            let sc = (low[s % 8] >> (4 * (s / 8)) & 15) | (high[s % 4] >> (2 * (s / 4)) & 3) << 4;
            *out = (sc as i8 - 32) as u8;
        }
        p[3].copy_from_slice(&half(&b.bytes[108..110]).to_le_bytes());
    }),
    blocks("q4_k", &[Format::Q4_K], "formats/q4_k", &[BITS4, plane(1, 2), plane(8, 4)], |b, p| {
        bits4(b, 0, p[0]);
        scales_and_offsets(&b.bytes[4..16], p[1]);
        p[2].copy_from_slice(&b.bytes[..4]);
    }),
    blocks("q5_k", &[Format::Q5_K], "formats/q5_k", &[BITS4, BITS1, plane(1, 2), plane(8, 4)], |b, p| {
        bits5(b, 0, p);
        scales_and_offsets(&b.bytes[4..16], p[2]);
        p[3].copy_from_slice(&b.bytes[..4]);
    }),
    blocks("q6_k", &[Format::Q6_K], "formats/q6_k", &[BITS4, BITS2, plane(1, 2), plane(8, 4)], |b, p| {
        bits4(b, 32, p[0]);
        high2(b, 32, p[1]);
        p[2].copy_from_slice(&b.bytes[192..208]);
        p[3].copy_from_slice(&half(&b.bytes[208..210]).to_le_bytes());
    }),
    blocks("iq4_nl", &[Format::IQ4_NL], "formats/iq4_nl", &[BITS4, plane(1, 2)], |b, p| {
        indices(&b.bytes[2..], p[0]);
        p[1].copy_from_slice(&b.bytes[..2]);
    }),
    blocks("iq4_xs", &[Format::IQ4_XS], "formats/iq4_xs", &[BITS4, plane(1, 1), plane(8, 4)], |b, p| {
        indices(&b.bytes[8..], p[0]);
        let high = u16::from_le_bytes([b.bytes[2], b.bytes[3]]);
        for (k, out) in p[1].iter_mut().enumerate() {
            let low = b.bytes[4 + k / 2] >> (4 * (k % 2)) & 15;
            *out = ((low | ((high >> (2 * k) & 3) as u8) << 4) as i8 - 32) as u8;
        }
        p[2].copy_from_slice(&half(&b.bytes[..2]).to_le_bytes());
    }),
    blocks("mxfp4", &[Format::MXFP4], "formats/mxfp4", &[BITS4, plane(1, 1)], |b, p| {
        indices(&b.bytes[1..], p[0]);
        p[1][0] = b.bytes[0];
    }),
    blocks("i8", Format::BLOCKS, "formats/i8", &[plane(1, 32), plane(1, 16)], |b, p| {
        bits8(b, p[0]);
        for (half, out) in p[1].chunks_exact_mut(8).enumerate() {
            let s = half * 16 / b.sub;
            out[..4].copy_from_slice(&b.scale[s].to_le_bytes());
            out[4..].copy_from_slice(&b.offset[s].to_le_bytes());
        }
    }),
];

fn bits8(b: &Unpacked<'_>, out: &mut [u8]) {
    for (out, &q) in out.iter_mut().zip(b.q) {
        *out = q as u8;
    }
}

/// `q + bias` of every value.
fn biased<'a>(b: &Unpacked<'a>, bias: i8) -> impl Iterator<Item = [u8; RUN]> + use<'a> {
    b.q.as_chunks::<RUN>().0.iter().map(move |run| run.map(|q| q.wrapping_add(bias) as u8))
}

/// The low 4 bits.
fn bits4(b: &Unpacked<'_>, bias: i8, out: &mut [u8]) {
    for (run, out) in biased(b, bias).zip(out.chunks_exact_mut(16)) {
        nibbles(&run, out);
    }
}

/// Low nibbles of word `w` are values `8 w ..`, high nibbles `8 w + 4 ..`.
fn nibbles(run: &[u8; RUN], out: &mut [u8]) {
    for (i, out) in out.iter_mut().enumerate() {
        let first = i / 4 * 8 + i % 4;
        *out = (run[first] & 15) | (run[first + 4] & 15) << 4;
    }
}

/// Bit 4 beside the low 4 bits.
fn bits5(b: &Unpacked<'_>, bias: i8, planes: &mut [&mut [u8]]) {
    bits4(b, bias, planes[0]);
    one_bit(b, bias, 4, planes[1]);
}

/// Bit number `number` of every value: value `4 k + j` at bit `k` of byte `j`.
fn one_bit(b: &Unpacked<'_>, bias: i8, number: u32, out: &mut [u8]) {
    for (run, out) in biased(b, bias).zip(out.chunks_exact_mut(4)) {
        for (i, value) in run.into_iter().enumerate() {
            out[i % 4] |= (value >> number & 1) << (i / 4);
        }
    }
}

/// Two bits from bit `number` on: value `16 w + 4 k + j` at bits `2 k` of byte `4 w + j`.
fn two_bits(b: &Unpacked<'_>, bias: i8, number: u32, out: &mut [u8]) {
    for (run, out) in biased(b, bias).zip(out.chunks_exact_mut(8)) {
        for (i, value) in run.into_iter().enumerate() {
            out[i / 16 * 4 + i % 4] |= (value >> number & 3) << (2 * (i / 4 % 4));
        }
    }
}

fn low2(b: &Unpacked<'_>, bias: i8, out: &mut [u8]) {
    two_bits(b, bias, 0, out);
}

fn high2(b: &Unpacked<'_>, bias: i8, out: &mut [u8]) {
    two_bits(b, bias, 4, out);
}

/// Codebook indices: byte `j` of 16 holds those of values `j` and `j + 16` of a run.
fn indices(bytes: &[u8], out: &mut [u8]) {
    for (bytes, out) in bytes.as_chunks::<16>().0.iter().zip(out.chunks_exact_mut(16)) {
        let run = std::array::from_fn(|i| bytes[i % 16] >> (4 * (i / 16)) & 15);
        nibbles(&run, out);
    }
}

/// The 6-bit `sc` and `m` of Q4_K and Q5_K, two bytes for each run.
fn scales_and_offsets(packed: &[u8], out: &mut [u8]) {
    for j in 0..4 {
        let (sc, m, low) = (packed[j], packed[j + 4], packed[j + 8]);
        out[2 * j] = sc & 63;
        out[2 * j + 1] = m & 63;
        out[2 * j + 8] = (low & 15) | (sc >> 6) << 4;
        out[2 * j + 9] = (low >> 4) | (m >> 6) << 4;
    }
}

/// A half float as f32. Subnormals are exact: their integer times 2^-24.
fn half(bytes: &[u8]) -> f32 {
    let bits = u32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    let (sign, exponent, mantissa) = (bits >> 15 << 31, bits >> 10 & 31, bits & 1023);
    let size = match exponent {
        0 => mantissa as f32 / f32::from_bits(151 << 23),
        31 => f32::from_bits(0x7F80_0000 | mantissa << 13),
        _ => f32::from_bits((exponent + 112) << 23 | mantissa << 13),
    };
    f32::from_bits(size.to_bits() | sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves() {
        for (bits, value) in [
            (0x3C00u16, 1.0f32),
            (0xC000, -2.0),
            (0x0001, 2f32.powi(-24)),
            (0x7BFF, 65504.0),
            (0x8000, -0.0),
            (0x0400, 2f32.powi(-14)),
        ] {
            assert_eq!(half(&bits.to_le_bytes()).to_bits(), value.to_bits());
        }
    }
}
