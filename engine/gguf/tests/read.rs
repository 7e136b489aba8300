//! Reading what another writer wrote, and the typed readers.

mod common;

use cchaha_gguf::{Array, Gguf, Metadata, Strings, Value, write_to};
use cchaha_plan::Format;

/// Written by `data/make.py` with the PyPI package gguf.
const FROM_PYTHON: &[u8] = include_bytes!("data/python-gguf.gguf");

fn from_python() -> Gguf {
    Gguf::from_bytes("python-gguf.gguf", FROM_PYTHON.to_vec().into()).expect("opens")
}

#[test]
fn reads_what_the_python_package_wrote() {
    let model = from_python();
    assert_eq!(model.version(), 3);
    assert_eq!(model.file_len(), FROM_PYTHON.len() as u64);
    let metadata: Vec<(&str, &Value)> = model.metadata().iter().collect();
    let expected: Vec<(&str, Value)> = vec![
        ("general.architecture", "llama".into()),
        ("t.u8", 0xfeu8.into()),
        ("t.i8", (-2i8).into()),
        ("t.u16", 0xfffeu16.into()),
        ("t.i16", (-3i16).into()),
        ("t.u32", 0xffff_fffeu32.into()),
        ("t.i32", (-4i32).into()),
        ("t.u64", (u64::MAX - 1).into()),
        ("t.i64", (-5i64).into()),
        ("t.f32", 0.1f32.into()),
        ("t.f64", 0.1f64.into()),
        ("t.bool", true.into()),
        ("t.str", "naïve ☃".into()),
        ("a.strings", Strings::from_iter(["", "a", "snow ☃"]).into()),
        ("a.bools", vec![true, false, true].into()),
        ("a.nested", Array::Arrays(vec![Array::I32(vec![1, 2]), Array::I32(vec![3])]).into()),
        ("a.u8", Array::U8(vec![1, 2, 3]).into()),
        ("a.i8", Array::I8(vec![1, 2, 3]).into()),
        ("a.u16", Array::U16(vec![1, 2, 3]).into()),
        ("a.i16", Array::I16(vec![1, 2, 3]).into()),
        ("a.u32", vec![1u32, 2, 3].into()),
        ("a.i32", vec![1i32, 2, 3].into()),
        ("a.u64", Array::U64(vec![1, 2, 3]).into()),
        ("a.i64", Array::I64(vec![1, 2, 3]).into()),
        ("a.f32", vec![1f32, 2.0, 3.0].into()),
        ("a.f64", Array::F64(vec![1.0, 2.0, 3.0]).into()),
        ("general.alignment", 64u32.into()),
    ];
    let expected: Vec<(&str, &Value)> = expected.iter().map(|(key, value)| (*key, value)).collect();
    assert_eq!(metadata, expected);

    let tensors: Vec<_> = model.tensors().iter().map(|t| (t.name.as_str(), t.format, &*t.dims)).collect();
    let expected: [(&str, Format, &[usize]); 4] = [
        ("f32.weight", Format::F32, &[32, 2]),
        ("f16.bias", Format::F16, &[3]),
        ("q4_0.weight", Format::Q4_0, &[32, 2]),
        ("q8_0.weight", Format::Q8_0, &[32, 2]),
    ];
    assert_eq!(tensors, expected);
    for tensor in model.tensors() {
        assert_eq!(tensor.offset % 64, 0);
        assert_eq!(tensor.data.len(), tensor.dims.n_bytes(tensor.format).expect("whole blocks"));
        assert_eq!(tensor.data.as_slice(), &FROM_PYTHON[tensor.offset as usize..][..tensor.data.len()]);
    }
    let (values, _) = model.tensors()[0].data.as_slice().as_chunks::<4>();
    let values: Vec<f32> = values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    assert_eq!(values, (0..64).map(|i| i as f32 - 31.5).collect::<Vec<_>>());
    // 1, -2, 3 as IEEE half precision.
    assert_eq!(
        model.tensor("f16.bias").expect("is there").data.as_slice(),
        [0x00, 0x3c, 0x00, 0xc0, 0x00, 0x42]
    );
    assert!(model.tensor("f16").is_none());
}

#[test]
fn writes_the_bytes_the_python_package_writes() {
    let model = from_python();
    let specs: Vec<_> = model
        .tensors()
        .iter()
        .map(|t| cchaha_gguf::TensorSpec { name: t.name.clone(), format: t.format, dims: t.dims })
        .collect();
    let mut bytes = Vec::new();
    write_to("copy", &mut bytes, model.metadata(), &specs, |i, out| {
        out.write_all(model.tensors()[i].data.as_slice())
    })
    .expect("writes");
    assert_eq!(bytes, FROM_PYTHON);
}

#[test]
fn version_2_is_version_3_with_another_number() {
    let mut bytes = common::small_file();
    bytes[4] = 2;
    let model = Gguf::from_bytes("v2", bytes.into()).expect("opens");
    assert_eq!(model.version(), 2);
    assert_eq!(model.tensors().len(), common::tensors().len());
}

#[test]
fn a_vocabulary_needs_no_tensors_and_no_padding() {
    let bytes = [common::header(3, 0, 1), common::u32_key(b"k", 5)].concat();
    let model = Gguf::from_bytes("vocab", bytes.into()).expect("opens");
    assert_eq!(model.metadata().require_u32("k").expect("is there"), 5);
}

#[test]
fn integers_of_any_type_serve_where_they_fit() {
    let metadata = common::metadata();
    assert_eq!(metadata.u32("one.u8").expect("fits"), Some(200));
    assert_eq!(metadata.usize("one.u16").expect("fits"), Some(60_000));
    assert_eq!(metadata.i32("one.i8").expect("fits"), Some(-100));
    assert_eq!(metadata.u64("one.u64").expect("fits"), Some(u64::MAX));
    assert_eq!(&*metadata.require_u32s("many.u8").expect("fits"), [0, 255]);
    assert_eq!(&*metadata.require_i32s("many.u16").expect("fits"), [0, 65_535]);
    assert_eq!(&*metadata.require_f32s("many.f64").expect("fits"), [0.25]);
    assert_eq!(metadata.require_bools("many.bool").expect("is there"), [true, false]);
    assert_eq!(metadata.require_str("one.str").expect("is there"), "naïve ☃");
    assert!(metadata.require_bool("one.bool").expect("is there"));
    assert_eq!(metadata.require_f32("one.f32").expect("is there"), 0.1);
    assert_eq!(metadata.str("absent").expect("no error"), None);
}

#[test]
fn strings_may_be_any_bytes() {
    let metadata = common::metadata();
    let strings = metadata.require_strings("many.strings").expect("is there");
    let expected: [&[u8]; 4] = [b"a", b"", b"\xff\xfe", "é".as_bytes()];
    assert_eq!(strings.iter().collect::<Vec<_>>(), expected);
    assert_eq!(strings.get(2), Some(b"\xff\xfe".as_slice()));
    assert_eq!(strings.get(4), None);
}

#[test]
fn the_wrong_type_is_named() {
    let metadata = common::metadata();
    let says = |result: Result<(), cchaha_gguf::Error>, parts: &[&str]| {
        let text = result.expect_err("wrong type").to_string();
        parts.iter().for_each(|part| assert!(text.contains(part), "{text:?} has no {part:?}"));
    };
    says(metadata.u32("one.str").map(drop), &["\"one.str\"", "string \"naïve ☃\"", "expected an integer"]);
    says(metadata.u32("one.i8").map(drop), &["\"one.i8\"", "i8 -100", "from 0 to 4294967295"]);
    says(metadata.i32("one.u32").map(drop), &["u32 4000000000", "to 2147483647"]);
    says(metadata.f32("one.f64").map(drop), &["f64 1e300", "expected a float"]);
    says(metadata.f32("one.u8").map(drop), &["u8 200", "expected a float"]);
    says(metadata.strings("many.u8").map(drop), &["an array of 2 u8", "expected an array of strings"]);
    says(metadata.u32s("many.i8").map(drop), &["an array of 2 i8", "expected an array of integers from 0"]);
    says(metadata.bools("many.strings").map(drop), &["an array of 4 strings", "expected an array of bools"]);
    says(
        metadata.require_u32("llama.block_count").map(drop),
        &["\"llama.block_count\" is missing", "an integer"],
    );
}

#[test]
fn set_replaces_in_place() {
    let mut metadata = Metadata::new();
    metadata.set("b", 1u32).set("a", 2u32).set("b", "x");
    let keys: Vec<&str> = metadata.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["b", "a"]);
    assert_eq!(metadata.get("b"), Some(&Value::Str("x".into())));
    assert_eq!(metadata.get("a"), Some(&Value::U32(2)));
}

#[test]
fn long_values_are_shown_short() {
    let show = |value: Value| (format!("{value}"), format!("{value:#}"));
    assert_eq!(show(Value::F32(1.0)).0, "1.0");
    let (short, long) = show((0..100i32).collect::<Vec<_>>().into());
    assert_eq!(short, "[0, 1, 2, 3, 4, 5, 6, 7, … 100 in all]");
    assert!(long.ends_with("98, 99]"));
    let (short, long) = show("☃".repeat(50).as_str().into());
    // 120 bytes of text are 40 of these characters.
    assert_eq!(short, format!("\"{}…\"", "☃".repeat(40)));
    assert_eq!(long, format!("\"{}\"", "☃".repeat(50)));
    assert_eq!(show(Strings::from_iter([b"it's\n".as_slice(), b"\xff"]).into()).0, r#"["it's\n", "\xff"]"#);
    assert_eq!(show(Array::Arrays(vec![Array::U8(vec![1]), Array::Bool(vec![])]).into()).0, "[[1], []]");
}
