//! Each kind of bad file gets its own sentence: where, what, and what to do.

mod common;

use std::path::Path;

use cchaha_gguf::{Error, Gguf};
use common::{header, small_file, string, tensor_header, u32_key};

/// The error of opening `bytes`, whose sentence must have all `parts`.
#[track_caller]
fn says(bytes: impl Into<Vec<u8>>, parts: &[&str]) -> Error {
    let error = Gguf::from_bytes("bad.gguf", bytes.into().into()).expect_err("a bad file");
    let text = error.to_string();
    for part in parts.iter().chain(&["bad.gguf"]) {
        assert!(text.contains(part), "{text:?} has no {part:?}");
    }
    error
}

/// A file of these tensors (each its declaration's bytes) and `n_data` bytes of data.
fn with_tensors(tensors: &[Vec<u8>], n_data: usize) -> Vec<u8> {
    let mut bytes = [header(3, tensors.len() as u64, 0), tensors.concat()].concat();
    bytes.resize(bytes.len().next_multiple_of(32) + n_data, 0);
    bytes
}

/// A file with one key of this type and these value bytes.
fn with_value(kind: u32, value: &[u8]) -> Vec<u8> {
    [header(3, 0, 1), string(b"some.key"), kind.to_le_bytes().to_vec(), value.to_vec()].concat()
}

#[test]
fn paths_that_are_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let absent = Gguf::open(&folder.path().join("absent.gguf")).expect_err("absent");
    assert!(absent.is_not_found() && absent.to_string().contains("absent.gguf: no such file"), "{absent}");
    let directory = Gguf::open(folder.path()).expect_err("a directory");
    assert!(!directory.is_not_found() && directory.to_string().contains("is a directory"), "{directory}");
    let path = folder.path().join("empty.gguf");
    std::fs::write(&path, b"").expect("writes");
    let empty = Gguf::open(&path).expect_err("empty");
    assert!(
        matches!(empty, Error::Empty { .. }) && empty.to_string().contains("empty.gguf is empty"),
        "{empty}"
    );
    #[cfg(unix)]
    {
        let device = Gguf::open(Path::new("/dev/null")).expect_err("a device");
        assert!(device.to_string().contains("no regular file"), "{device}");
    }
}

#[test]
fn files_of_other_kinds() {
    says(*b"", &["is empty"]);
    says(*b"hello, world", &["is not a GGUF file", "starts with \"hello, w…\"", "expected \"GGUF\""]);
    says(*b"<!DOCTYPE html>", &["a web page"]);
    says(*b"version https://git-lfs.github.com/spec/v1\n", &["git lfs pull"]);
    says(*b"PK\x03\x04........", &["PyTorch"]);
    says(*b"\x40\0\0\0\0\0\0\0{\"a\":{}}", &["safetensors"]);
    says(
        *b"GG",
        &[
            "cut short",
            "the header at byte 0",
            "at least 2 more bytes than the file's 2",
            "download it again",
        ],
    );
}

#[test]
fn versions() {
    assert!(matches!(says(header(1, 0, 0), &["has GGUF version 1, expected 2 or 3"]), Error::Version { .. }));
    says(header(4, 0, 0), &["has GGUF version 4"]);
    assert!(matches!(says(header(3u32.swap_bytes(), 0, 0), &["big-endian"]), Error::BigEndian { .. }));
}

#[test]
fn cut_short() {
    let whole = small_file();
    says(&whole[..20], &["the header at byte 16 needs at least 4 more bytes than the file's 20"]);
    says(&whole[..40], &["the header at byte 24 needs at least 361 more bytes than the file's 40"]);
    let key = whole.windows(8).position(|text| text == b"many.f64").expect("a key of the file");
    says(&whole[..key + 10], &[&format!("key \"many.f64\" at byte {} needs at least 2 more bytes", key + 8)]);
    let model = Gguf::from_bytes("whole", whole.clone().into()).expect("opens");
    let last = model.tensors().last().expect("tensors");
    let end = last.offset as usize + last.data.len();
    let at =
        format!("the data of tensor \"output.weight\" at byte {} needs at least 10 more bytes", last.offset);
    says(&whole[..end - 10], &[&at]);
}

#[test]
fn counts_that_cannot_be() {
    says(header(3, 0, 100), &["the header at byte 24 needs at least 1300 more bytes than the file's 24"]);
    says(header(3, 100, 0), &["the header at byte 24 needs at least 3200 more bytes"]);
    says(header(3, 0, u64::MAX), &["18446744073709551615 keys, at most"]);
    says(header(3, u64::MAX, 0), &["18446744073709551615 tensors, at most"]);
    let strings = [8u32.to_le_bytes().as_slice(), &(1u64 << 62).to_le_bytes()].concat();
    says(with_value(9, &strings), &["key \"some.key\"", "needs at least 18446744073709551615 more bytes"]);
    says(
        with_value(8, &u64::MAX.to_le_bytes()),
        &["key \"some.key\"", "needs at least 18446744073709551615"],
    );
}

#[test]
fn keys_and_values() {
    let twice = [header(3, 0, 2), u32_key(b"k", 1), u32_key(b"k", 2)].concat();
    assert!(matches!(says(twice, &["key \"k\" at byte 50 is there twice"]), Error::Duplicate { at: 50, .. }));
    says(
        [header(3, 0, 1), u32_key(b"k\xff", 1)].concat(),
        &["key number 0 at byte 24", "not valid UTF-8 from its byte 1"],
    );
    says([header(3, 0, 1), u32_key(&[b'k'; 65_536], 1)].concat(), &["65536 bytes, expected at most 65535"]);
    says(with_value(13, &[0; 8]), &["key \"some.key\" at byte 40: value type 13, expected 0 to 12"]);
    says(with_value(7, &[2]), &["key \"some.key\" at byte 44: a bool is 2, expected 0 or 1"]);
    let bools = [7u32.to_le_bytes().as_slice(), &3u64.to_le_bytes(), &[1, 0, 7]].concat();
    says(with_value(9, &bools), &["at byte 58: a bool is 7"]);
    says(
        with_value(8, &string(b"caf\xe9")),
        &["key \"some.key\" at byte 44", "not valid UTF-8 from its byte 3"],
    );
    let inner = [9u32.to_le_bytes().as_slice(), &1u64.to_le_bytes()].concat();
    says(with_value(9, &inner.repeat(4)), &["key \"some.key\"", "5 arrays inside each other, at most 4"]);
}

#[test]
fn alignment() {
    for (value, found) in [(0u32, "u32 0"), (24, "u32 24"), (4, "u32 4")] {
        let bytes = [header(3, 0, 1), u32_key(b"general.alignment", value)].concat();
        says(bytes, &["key \"general.alignment\" at byte 49", found, "expected a power of two, at least 8"]);
    }
    // Large, but allowed: the data would start beyond the end.
    let tensor = tensor_header(b"a", &[1], 0, 0);
    let bytes = [header(3, 1, 1), u32_key(b"general.alignment", 1 << 31), tensor].concat();
    says(bytes, &["the data of tensor \"a\" at byte 2147483648", "cut short"]);
}

#[test]
fn tensors() {
    let one = |dims: &[u64], id, offset| with_tensors(&[tensor_header(b"a", dims, id, offset)], 64);
    Gguf::from_bytes("good", one(&[16], 0, 0).into()).expect("the form all others deviate from");

    says(one(&[], 0, 0), &["tensor \"a\" at byte 33: 0 dimensions, expected 1 to 4"]);
    says(one(&[1; 5], 0, 0), &["5 dimensions, expected 1 to 4"]);
    says(one(&[4, 0], 0, 0), &["dimensions [4, 0], expected none zero"]);
    says(
        one(&[1 << 32, 1 << 32], 0, 0),
        &["dimensions [4294967296, 4294967296], expected", "fits in memory"],
    );
    says(one(&[1 << 62], 0, 0), &["take more bytes than memory has"]);
    says(one(&[48], 2, 0), &["tensor \"a\"", "48 columns of Q4_0, expected a multiple of its block of 32"]);
    says(
        one(&[1], 0, 4),
        &["tensor \"a\" at byte 24", "offset is 4, expected a multiple of the alignment 32"],
    );
    says(one(&[1], 0, u64::MAX - 31), &["offset is 18446744073709551584, which lies outside of any file"]);
    says(one(&[1], 0, 96), &["the data of tensor \"a\" at byte 160", "at least 36 more bytes"]);

    let known =
        says(one(&[256], 17, 0), &["tensor \"a\" at byte 45 has type IQ2_XS, which is not supported"]);
    assert!(matches!(known, Error::UnsupportedFormat { .. }));
    says(one(&[256], 26, 0), &["has type I32, which is not supported"]);
    says(one(&[256], 99, 0), &["has type number 99, which is not supported"]);

    let a = tensor_header(b"a", &[16], 0, 0);
    let twice = with_tensors(&[a.clone(), tensor_header(b"a", &[1], 0, 64)], 128);
    assert!(matches!(says(twice, &["tensor \"a\"", "is there twice"]), Error::Duplicate { .. }));
    let overlap = with_tensors(&[a.clone(), tensor_header(b"b", &[1], 0, 32)], 128);
    says(overlap, &["tensor \"b\"", "its data overlaps that of tensor \"a\""]);
    says(with_tensors(&[tensor_header(b"\xc3", &[1], 0, 0)], 64), &["tensor number 0", "not valid UTF-8"]);

    // In any order, and with gaps, is fine.
    let apart = with_tensors(&[tensor_header(b"b", &[1], 0, 96), a], 128);
    Gguf::from_bytes("good", apart.into()).expect("opens");
}
