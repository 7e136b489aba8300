//! Damaged files: a typed error or a correct load, no panic, and memory bounded by the size of the file.
#![allow(unsafe_code)] // A global allocator that counts cannot be written without.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use cchaha_gguf::{Error, Gguf};
use common::{Rng, header, small_file, string, tensor_header};

thread_local! {
    /// Bytes this thread holds now, and the most it has held since the last [`measured`] began.
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system allocator unchanged; counting neither allocates nor panics
// (the cells are constant-initialized and have no destructor, so they are there for the whole life of a thread).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get().wrapping_add(layout.size()));
        PEAK.set(PEAK.get().max(HELD.get()));
        // SAFETY: the caller keeps `GlobalAlloc`'s contract, which is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The promise: twice the file and 16 MiB.
fn promised(file_len: usize) -> usize {
    2 * file_len + (16 << 20)
}

/// What `run` gives, and the most bytes it held at a time beyond those held before.
fn measured<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = run();
    (result, PEAK.get() - before)
}

/// Opens `bytes`, looks at all there is, and gives the result and the memory that opening took.
fn try_open(bytes: Vec<u8>) -> (Result<Gguf, Error>, usize) {
    let bytes = bytes.into();
    let (result, peak) = measured(|| Gguf::from_bytes("hostile.gguf", bytes));
    match &result {
        Ok(model) => {
            for (key, value) in model.metadata().iter() {
                black_box((key.len(), format!("{value:#}").len()));
                assert!(model.metadata().get(key).is_some());
            }
            for tensor in model.tensors() {
                assert_eq!(tensor.dims.n_bytes(tensor.format), Some(tensor.data.len()));
                black_box(tensor.data.as_slice().iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
                assert!(model.tensor(&tensor.name).is_some());
            }
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("hostile.gguf"), "{text}");
            assert!(text.len() < 1000, "{text}");
        }
    }
    (result, peak)
}

/// As [`try_open`], for files of a few KB. The promise's 16 MiB hide much at that size, so the limit is what
/// such a file can honestly need: the densest things (keys, tensors) take below 8 times their bytes.
fn try_open_small(bytes: Vec<u8>) -> Result<Gguf, Error> {
    let limit = 8 * bytes.len() + (8 << 10);
    let (result, peak) = try_open(bytes);
    assert!(peak <= limit, "opening took {peak} bytes, limit {limit}");
    result
}

#[test]
fn every_prefix_is_refused_until_all_data_is_there() {
    let whole = small_file();
    let model = Gguf::from_bytes("whole", whole.clone().into()).expect("opens");
    let data_end = model.tensors().iter().map(|t| t.offset as usize + t.data.len()).max().expect("tensors");
    for len in 0..whole.len() {
        match try_open_small(whole[..len].to_vec()) {
            Ok(_) => assert!(len >= data_end, "opened with {len} bytes of {data_end}"),
            Err(Error::Empty { .. }) => assert_eq!(len, 0),
            Err(Error::Truncated { missing, .. }) => {
                assert!(0 < missing && len < data_end && len as u64 + missing <= data_end as u64, "{len}")
            }
            Err(other) => panic!("a prefix of {len} bytes: {other}"),
        }
    }
}

#[test]
fn every_prefix_on_disk_is_refused_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cut.gguf");
    let whole = small_file();
    for len in (0..whole.len() - 64).step_by(97) {
        std::fs::write(&path, &whole[..len]).expect("writes");
        let error = Gguf::open(&path).expect_err("cut short");
        assert!(matches!(error, Error::Empty { .. } | Error::Truncated { .. }), "{len}: {error}");
    }
}

#[test]
fn boundary_values_in_every_place() {
    let whole = small_file();
    let values: [u64; 14] = [
        0,
        1,
        2,
        0x7f,
        0x80,
        0xff,
        0x7fff_ffff,
        1 << 31,
        0xffff_ffff,
        1 << 32,
        i64::MAX as u64,
        1 << 63,
        u64::MAX - 7,
        u64::MAX,
    ];
    let (mut opened, mut refused) = (0, 0);
    for at in 0..whole.len() {
        for width in [1, 4, 8] {
            for value in values {
                let mut bytes = whole.clone();
                let end = (at + width).min(bytes.len());
                bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
                match try_open_small(bytes) {
                    Ok(_) => opened += 1,
                    Err(_) => refused += 1,
                }
            }
        }
    }
    // Both must happen often, or the test tests nothing.
    assert!(opened > 1000 && refused > 1000, "{opened} opened, {refused} refused");
}

#[test]
fn ten_thousand_random_mutations() {
    let whole = small_file();
    let rng = &mut Rng(2);
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..10_000 {
        let mut bytes = whole.clone();
        for _ in 0..=rng.below(4) {
            // Most of a small file is header; a quarter of the mutations go to its first bytes.
            let reach = if rng.below(4) == 0 { 64 } else { bytes.len() };
            let at = rng.below(reach);
            match rng.below(5) {
                0 => bytes[at] = rng.next() as u8,
                1 => bytes[at] ^= 1 << rng.below(8),
                2 => drop(bytes.drain(at..(at + rng.below(16)).min(bytes.len()))),
                3 => {
                    let n = rng.below(16);
                    bytes.splice(at..at, rng.bytes(n));
                }
                _ => {
                    let from = rng.below(bytes.len());
                    let n = rng.below(32).min(bytes.len() - from.max(at));
                    bytes.copy_within(from..from + n, at);
                }
            }
        }
        match try_open_small(bytes) {
            Ok(_) => opened += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(opened > 500 && refused > 500, "{opened} opened, {refused} refused");
}

/// Files that are valid and as costly to hold as they can be made.
#[test]
fn valid_files_of_the_worst_kind_stay_within_the_promise() {
    let empty_strings = |n: usize| {
        let array = [9u32.to_le_bytes(), 8u32.to_le_bytes()].concat();
        [string(b"s"), array, (n as u64).to_le_bytes().to_vec(), vec![0; 8 * n]].concat()
    };
    let inner_arrays = |n: usize| {
        let array = [9u32.to_le_bytes(), 9u32.to_le_bytes()].concat();
        let inner = [0u32.to_le_bytes().as_slice(), &0u64.to_le_bytes()].concat();
        [string(b"a"), array, (n as u64).to_le_bytes().to_vec(), inner.repeat(n)].concat()
    };
    let tiny_keys = |n: usize| {
        let key = |i: usize| [string(&i.to_le_bytes()[..2]), 0u32.to_le_bytes().to_vec(), vec![7]].concat();
        // Keys of two bytes that are UTF-8: both below 0x80.
        (0..n).flat_map(|i| key((i & 0x7f) | (i >> 7) << 8)).collect::<Vec<u8>>()
    };
    let alignment =
        [string(b"general.alignment"), 4u32.to_le_bytes().to_vec(), 8u32.to_le_bytes().to_vec()].concat();
    let tiny_tensors = |n: usize| {
        let tensor = |i: usize| tensor_header(format!("{i:x}").as_bytes(), &[1], 0, 8 * i as u64);
        (0..n).flat_map(tensor).collect::<Vec<u8>>()
    };

    let strings = [header(3, 0, 1), empty_strings(8 << 20)].concat();
    let everything = [
        header(3, 1 << 16, 1 << 14),
        tiny_keys((1 << 14) - 2),
        alignment,
        inner_arrays(1 << 14),
        tiny_tensors(1 << 16),
        vec![0; 8 + (8 << 16)],
    ]
    .concat();
    for file in [strings, everything] {
        let len = file.len();
        let (result, peak) = try_open(file);
        result.expect("valid");
        assert!(peak <= promised(len), "{len} bytes of file took {peak}, promised {}", promised(len));
    }
}

#[test]
fn more_than_the_limits_is_refused_before_it_costs_memory() {
    let refuse = |bytes: Vec<u8>, part: &str| {
        let len = bytes.len();
        let (result, peak) = try_open(bytes);
        let text = result.map(|_| ()).expect_err("over a limit").to_string();
        assert!(text.contains(part), "{text:?} has no {part:?}");
        assert!(peak < 64 << 10, "{len} bytes of file took {peak}");
    };
    let zeros = vec![0; 4 << 20];
    refuse([header(3, 0, 16_385), zeros.clone()].concat(), "16385 keys, at most 16384");
    refuse([header(3, 65_537, 0), zeros.clone()].concat(), "65537 tensors, at most 65536");
    let nested = [9u32.to_le_bytes(), 9u32.to_le_bytes()].concat();
    let many = [header(3, 0, 1), string(b"a"), nested, 16_385u64.to_le_bytes().to_vec(), zeros].concat();
    refuse(many, "16385 arrays in arrays, at most 16384");
}
