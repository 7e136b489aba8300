//! What is written is read back exactly.

mod common;

use cchaha_gguf::{Array, Gguf, Metadata, TensorSpec, Value, write, write_to};
use cchaha_plan::FORMATS;
use common::{Rng, same, spec};

/// Random arrays may nest once more than `depth` says.
fn random_array(rng: &mut Rng, depth: u32) -> Array {
    let n = rng.below(6);
    match rng.below(if depth < 3 { 13 } else { 12 }) {
        0 => Array::U8(rng.bytes(n)),
        1 => Array::I8((0..n).map(|_| rng.next() as i8).collect()),
        2 => Array::U16((0..n).map(|_| rng.next() as u16).collect()),
        3 => Array::I16((0..n).map(|_| rng.next() as i16).collect()),
        4 => Array::U32((0..n).map(|_| rng.next() as u32).collect()),
        5 => Array::I32((0..n).map(|_| rng.next() as i32).collect()),
        6 => Array::U64((0..n).map(|_| rng.next()).collect()),
        7 => Array::I64((0..n).map(|_| rng.next() as i64).collect()),
        // Arrays are compared as numbers, so no NaN in them.
        8 => Array::F32((0..n).map(|_| rng.next() as f32).collect()),
        9 => Array::F64((0..n).map(|_| rng.next() as f64).collect()),
        10 => Array::Bool((0..n).map(|_| rng.below(2) == 1).collect()),
        11 => Array::Strings((0..n).map(|i| rng.bytes(i * 3)).collect()),
        _ => Array::Arrays((0..n).map(|_| random_array(rng, depth + 1)).collect()),
    }
}

fn random_value(rng: &mut Rng) -> Value {
    match rng.below(14) {
        0 => Value::U8(rng.next() as u8),
        1 => Value::I8(rng.next() as i8),
        2 => Value::U16(rng.next() as u16),
        3 => Value::I16(rng.next() as i16),
        4 => Value::U32(rng.next() as u32),
        5 => Value::I32(rng.next() as i32),
        6 => Value::U64(rng.next()),
        7 => Value::I64(rng.next() as i64),
        8 => Value::F32(f32::from_bits(rng.next() as u32)),
        9 => Value::F64(f64::from_bits(rng.next())),
        10 => Value::Bool(rng.below(2) == 1),
        11 => Value::Str(String::from_utf8_lossy(&rng.bytes(20)).into_owned()),
        _ => Value::Array(random_array(rng, 1)),
    }
}

fn random_tensors(rng: &mut Rng) -> Vec<TensorSpec> {
    let one = |i: usize, rng: &mut Rng| {
        let format = FORMATS[rng.below(FORMATS.len())].format;
        let mut dims = vec![format.block_len() * (1 + rng.below(3))];
        dims.extend((0..rng.below(4)).map(|_| 1 + rng.below(3)));
        spec(&format!("tensor.{i}"), format, &dims)
    };
    (0..rng.below(6)).map(|i| one(i, rng)).collect()
}

#[test]
fn random_models_come_back_exactly() {
    for seed in 0..500 {
        let rng = &mut Rng(seed);
        let mut metadata = Metadata::new();
        for i in 0..rng.below(20) {
            metadata.set(format!("key.{}", rng.next() % 1000 + i as u64), random_value(rng));
        }
        let alignment = 8u32 << rng.below(7);
        metadata.set("general.alignment", alignment);
        let tensors = random_tensors(rng);
        let bytes = common::file(&metadata, &tensors);
        assert_eq!(bytes.len() % alignment as usize, 0);

        let model =
            Gguf::from_bytes("random", bytes.clone().into()).unwrap_or_else(|e| panic!("{seed}: {e}"));
        assert_eq!(model.metadata().len(), metadata.len());
        for ((key, value), (wrote_key, wrote)) in model.metadata().iter().zip(metadata.iter()) {
            assert!(
                key == wrote_key && same(value, wrote),
                "seed {seed}: {wrote_key} {wrote}, read {key} {value}"
            );
        }
        assert_eq!(model.tensors().len(), tensors.len());
        for (i, (tensor, wrote)) in model.tensors().iter().zip(&tensors).enumerate() {
            assert_eq!((&tensor.name, tensor.format, tensor.dims), (&wrote.name, wrote.format, wrote.dims));
            assert_eq!(tensor.data.as_slice(), Rng(i as u64).bytes(tensor.data.len()));
            assert_eq!(tensor.offset % u64::from(alignment), 0);
        }

        let mut again = Vec::new();
        write_to("again", &mut again, model.metadata(), &tensors, common::data(&tensors)).expect("writes");
        assert!(again == bytes, "seed {seed}: written again, the bytes differ");
    }
}

#[test]
fn a_file_on_disk_is_replaced_whole_or_not_at_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    let (metadata, tensors) = (common::metadata(), common::tensors());
    write(&path, &metadata, &tensors, common::data(&tensors)).expect("writes");
    let model = Gguf::open(&path).expect("opens");
    assert_eq!(std::fs::read(&path).expect("reads"), common::small_file());

    // The data callback fails in the middle: the old file stays and nothing is left beside it.
    let failed = write(&path, &metadata, &tensors, |i, out| match i {
        2 => Err(std::io::Error::other("the disk went away")),
        _ => common::data(&tensors)(i, out),
    });
    let text = failed.expect_err("fails").to_string();
    assert!(text.contains("cannot write") && text.contains("the disk went away"), "{text}");
    assert_eq!(std::fs::read(&path).expect("reads"), common::small_file());

    // A model may be written over the file it is read from.
    let mut changed = model.metadata().clone();
    changed.set("general.name", "changed");
    write(&path, &changed, &tensors, |i, out| out.write_all(model.tensors()[i].data.as_slice()))
        .expect("writes");
    let again = Gguf::open(&path).expect("opens");
    assert_eq!(again.metadata().require_str("general.name").expect("is there"), "changed");
    for (new, old) in again.tensors().iter().zip(model.tensors()) {
        assert_eq!(new.data.as_slice(), old.data.as_slice());
    }

    let text =
        write(folder.path(), &metadata, &tensors, common::data(&tensors)).expect_err("a folder").to_string();
    assert!(text.contains("is a directory"), "{text}");

    let left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("lists").map(|e| e.expect("entry").path()).collect();
    assert_eq!(left, [path]);
}

#[test]
fn what_could_not_be_read_is_not_written() {
    use cchaha_plan::Format;
    let says = |metadata: &Metadata, tensors: &[TensorSpec], part: &str| {
        let error = write_to("out.gguf", &mut Vec::new(), metadata, tensors, common::data(tensors));
        let text = error.expect_err(part).to_string();
        assert!(text.contains(part), "{text:?} has no {part:?}");
    };
    let none = Metadata::new();
    let one = spec("a", Format::F32, &[2]);
    says(&none, &[one.clone(), one.clone()], "tensor \"a\": it is there twice");
    says(&none, &[spec("a", Format::Q4_0, &[33])], "33 values of Q4_0, expected columns in blocks of 32");
    says(&none, &[spec(&"x".repeat(64), Format::F32, &[2])], "a name of 64 bytes, expected at most 63");
    let huge = spec("a", Format::F32, &[1 << 60]);
    says(&none, &[spec("b", Format::F32, &[1 << 60]), huge], "longer than a file can be");
    says(Metadata::new().set("general.alignment", 24u32), &[], "u32 24, expected a power of two");
    says(Metadata::new().set("k".repeat(65_536), 1u32), &[], "a name of 65536 bytes");
    let nested = (0..4).fold(Array::U8(vec![]), |inner, _| Array::Arrays(vec![inner]));
    says(Metadata::new().set("deep", nested), &[], "key \"deep\": arrays in arrays, at most 4");

    let short = write_to("out.gguf", &mut Vec::new(), &none, &[one], |_, out| out.write_all(&[0; 7]));
    let text = short.expect_err("too little data").to_string();
    assert!(text.contains("7 bytes of data were written, expected 8"), "{text}");
}
