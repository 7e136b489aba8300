//! Dequantization is bit for bit that of PyPI `gguf` 0.19, on ordinary and on hostile blocks of every format.
//! `tests/formats/make.py` wrote the vectors and documents their file.

use cchaha_kernels::formats;
use cchaha_plan::{FORMATS, Format};

struct Record<'a> {
    format: Format,
    blocks: &'a [u8],
    values: Vec<f32>,
}

fn records(mut file: &[u8]) -> Vec<Record<'_>> {
    let mut take = |n: usize| {
        let (head, tail) = file.split_at(n);
        file = tail;
        head
    };
    let mut records = Vec::new();
    for _ in FORMATS {
        let name = std::str::from_utf8(take(16)).unwrap().trim_end_matches('\0');
        let format = Format::from_name(name).unwrap();
        let mut size = || u32::from_le_bytes(take(4).try_into().unwrap()) as usize;
        let (block_bytes, n_values) = (size(), size());
        let blocks = take(block_bytes);
        let values =
            take(4 * n_values).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        records.push(Record { format, blocks, values });
    }
    assert!(file.is_empty(), "vectors of formats the table does not have");
    records
}

#[test]
fn every_format_equals_gguf_bit_for_bit() {
    let records = records(include_bytes!("../formats/vectors.bin"));
    for row in FORMATS {
        let record =
            records.iter().find(|record| record.format == row.format).expect("vectors for every format");
        let mut values = vec![0.0; record.values.len()];
        formats::dequantize(row.format, record.blocks, &mut values);
        let (mut finite, mut special) = (0, 0);
        for (i, (&got, &want)) in values.iter().zip(&record.values).enumerate() {
            let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
            assert!(same, "{} value {i}: {got:e} instead of {want:e}", row.name);
            if want.is_finite() { finite += 1 } else { special += 1 }
        }
        assert!(finite > 256, "{}: {finite} finite values prove little", row.name);
        assert!(special > 0 || row.format == Format::MXFP4, "{}: no hostile values", row.name);
    }
}

#[test]
fn scale_times_q_plus_offset_is_the_value() {
    for record in records(include_bytes!("../formats/vectors.bin")) {
        let Some(blocks) = formats::ops(record.format).blocks else { continue };
        let len = record.format.block_len();
        let values = record.values.chunks_exact(len);
        for (block, values) in record.blocks.chunks_exact(record.format.block_bytes()).zip(values) {
            let (mut q, subs) = (vec![0; len], len / blocks.sub);
            let (mut scale, mut offset) = (vec![0.0; subs], vec![0.0; subs]);
            (blocks.unpack)(block, &mut q, &mut scale, &mut offset);
            for (i, &want) in values.iter().enumerate() {
                let got = scale[i / blocks.sub] * f32::from(q[i]) + offset[i / blocks.sub];
                assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()));
            }
        }
    }
}

#[test]
#[should_panic(expected = "storage of 64 Q8_0 values")]
fn a_wrong_length_is_refused() {
    formats::dequantize(Format::Q8_0, &[0; 34], &mut [0.0; 64]);
}
