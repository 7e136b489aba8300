//! A small model with every kind of value, and random numbers from a seed.
#![allow(dead_code)]

use std::io::{self, Write};

use cchaha_gguf::{Array, Dims, Metadata, Strings, TensorSpec, Value, write_to};
use cchaha_plan::Format;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `n - 1`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

pub(crate) fn spec(name: &str, format: Format, dims: &[usize]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), format, dims: Dims::new(dims).expect("dims") }
}

/// Metadata of every type, alone and in arrays.
pub(crate) fn metadata() -> Metadata {
    let mut metadata = Metadata::new();
    metadata
        .set("general.architecture", "llama")
        .set("general.alignment", 32u32)
        .set("one.u8", 200u8)
        .set("one.i8", -100i8)
        .set("one.u16", 60_000u16)
        .set("one.i16", -30_000i16)
        .set("one.u32", 4_000_000_000u32)
        .set("one.i32", -2_000_000_000i32)
        .set("one.u64", u64::MAX)
        .set("one.i64", i64::MIN)
        .set("one.f32", 0.1f32)
        .set("one.f64", 1e300f64)
        .set("one.bool", true)
        .set("one.str", "naïve ☃")
        .set("one.empty", "")
        .set("many.u8", Array::U8(vec![0, 255]))
        .set("many.i8", Array::I8(vec![-128, 127]))
        .set("many.u16", Array::U16(vec![0, 65_535]))
        .set("many.i16", Array::I16(vec![-32_768, 32_767]))
        .set("many.u32", vec![1u32, 2, 3])
        .set("many.i32", vec![-1i32, 2, 3])
        .set("many.u64", Array::U64(vec![u64::MAX]))
        .set("many.i64", Array::I64(vec![i64::MIN]))
        .set("many.f32", vec![0.5f32, -0.5])
        .set("many.f64", Array::F64(vec![0.25]))
        .set("many.bool", vec![true, false])
        .set("many.none", Array::F32(vec![]))
        .set("many.strings", Strings::from_iter([b"a".as_slice(), b"", b"\xff\xfe", "é".as_bytes()]))
        .set(
            "many.arrays",
            Array::Arrays(vec![
                Array::Arrays(vec![Array::U8(vec![1]), Array::Strings(Strings::from_iter(["x"]))]),
                Array::I32(vec![7]),
            ]),
        );
    metadata
}

/// Tensors of several formats and numbers of dimensions; the third leaves padding behind it.
pub(crate) fn tensors() -> Vec<TensorSpec> {
    vec![
        spec("token_embd.weight", Format::Q4_0, &[32, 4]),
        spec("blk.0.attn_q.weight", Format::F16, &[4, 2, 2, 2]),
        spec("output_norm.weight", Format::F32, &[3]),
        spec("output.weight", Format::Q6_K, &[256, 1]),
    ]
}

/// Bytes that tell tensors and positions apart.
pub(crate) fn data(tensors: &[TensorSpec]) -> impl FnMut(usize, &mut dyn Write) -> io::Result<()> + '_ {
    |i, out| {
        let TensorSpec { format, dims, .. } = &tensors[i];
        let n = dims.n_bytes(*format).expect("whole blocks");
        out.write_all(&Rng(i as u64).bytes(n))
    }
}

/// A whole file in memory.
pub(crate) fn file(metadata: &Metadata, tensors: &[TensorSpec]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_to("test.gguf", &mut bytes, metadata, tensors, data(tensors)).expect("a valid file");
    bytes
}

/// [`metadata`] and [`tensors`] as a file of about 2 KB.
pub(crate) fn small_file() -> Vec<u8> {
    file(&metadata(), &tensors())
}

/// The start of a file with these counts, to be followed by keys and tensors.
pub(crate) fn header(version: u32, n_tensors: u64, n_keys: u64) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(version.to_le_bytes());
    bytes.extend(n_tensors.to_le_bytes());
    bytes.extend(n_keys.to_le_bytes());
    bytes
}

/// A string as a file stores it.
pub(crate) fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// What a file declares of one tensor, nothing checked.
pub(crate) fn tensor_header(name: &[u8], dims: &[u64], id: u32, offset: u64) -> Vec<u8> {
    let mut bytes = string(name);
    bytes.extend((dims.len() as u32).to_le_bytes());
    dims.iter().for_each(|dim| bytes.extend(dim.to_le_bytes()));
    bytes.extend(id.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

/// A key with a `u32`.
pub(crate) fn u32_key(key: &[u8], value: u32) -> Vec<u8> {
    [&string(key), 4u32.to_le_bytes().as_slice(), &value.to_le_bytes()].concat()
}

/// Equal where the bits are, so that NaN equals itself.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::F32(a), Value::F32(b)) => a.to_bits() == b.to_bits(),
        (Value::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}
