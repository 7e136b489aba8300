//! Encoders against derived bounds, hostile values, each other, and ggml.

use std::path::Path;

use cchaha_gguf::Gguf;
use cchaha_kernels::Isa;
use cchaha_kernels::encode::{EncodeError, Encoder, encoders};
use cchaha_kernels::formats::{dequantize, ops};
use cchaha_plan::{FORMATS, Format};

use crate::{Random, golden};

fn encode(format: Format, isa: Isa, x: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let mut bytes = vec![0x55; format.row_bytes(x.len()).unwrap()];
    Encoder::of(format, isa).encode(x, importance, &mut bytes).unwrap();
    bytes
}

fn decode(format: Format, bytes: &[u8], n: usize) -> Vec<f32> {
    let mut values = vec![0.0; n];
    dequantize(format, bytes, &mut values);
    values
}

/// What the root mean square error of a block can be at most: `relative` of the largest magnitude in it, and `absolute`.
///
/// One of the candidates lays the block's (or run's) extreme on the last level, or within 2% of it; there no value is
/// further than one step from its level, half a step but for values beyond the shorter end. Least squares only lowers the
/// error. Then scales are rounded: f16 by 2^-11, nested ones by half of their step, which moves the last level by
/// `top / (2 * scales)` steps: at most 0.13 (Q4_K) to 0.26 (Q5_K) steps. One step and 30% covers it all. The step is the
/// range over the levels; ranges with an offset are up to twice the magnitude. f16 scales below 2^-14 have an absolute
/// step of 2^-24, which counts as often as the nested scale and the level say.
fn bound(format: Format) -> (f64, f64) {
    let grain = 2f64.powi(-24);
    let step = |levels: f64| 1.3 / levels;
    match format {
        Format::F32 => (0.0, 0.0),
        Format::F16 => (2f64.powi(-11), grain),
        Format::BF16 => (2f64.powi(-8), f64::from(f32::MIN_POSITIVE)),
        Format::Q8_0 => (0.5 / 127.0 * 1.01, 127.0 * grain),
        Format::Q4_0 => (step(8.0), 8.0 * grain),
        Format::Q5_0 => (step(16.0), 16.0 * grain),
        Format::Q4_1 => (2.0 * step(15.0), 16.0 * grain),
        Format::Q5_1 => (2.0 * step(31.0), 32.0 * grain),
        Format::Q2_K => (2.0 * step(3.0), 4.0 * 15.0 * grain),
        Format::Q3_K => (step(4.0), 4.0 * 32.0 * grain),
        Format::Q4_K => (2.0 * step(15.0), 16.0 * 63.0 * grain),
        Format::Q5_K => (2.0 * step(31.0), 32.0 * 63.0 * grain),
        Format::Q6_K => (step(32.0), 32.0 * 128.0 * grain),
        // The widest gap of the codebook is 24 of 127; the shorter end is 14 short.
        Format::IQ4_NL => (step(127.0 / 24.0), 127.0 * grain),
        Format::IQ4_XS => (step(127.0 / 24.0), 127.0 * 32.0 * grain),
        // Levels 4 and 6: a value of nearly 8 is a quarter short.
        Format::MXFP4 => (0.25, f64::from(f32::MIN_POSITIVE)),
    }
}

fn check_bound(format: Format, x: &[f32], what: &str) {
    let bytes = encode(format, Isa::best(), x, None);
    let y = decode(format, &bytes, x.len());
    let (relative, absolute) = bound(format);
    for (block, (x, y)) in x.chunks(format.block_len()).zip(y.chunks(format.block_len())).enumerate() {
        let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let error: f64 = x.iter().zip(y).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum();
        let rms = (error / x.len() as f64).sqrt();
        let limit = relative * f64::from(largest) + absolute;
        assert!(rms <= limit, "{format}, {what}, block {block}: error {rms:e}, at most {limit:e} derived");
    }
}

/// Blocks that have made encoders fail: `(name, values)`.
fn hostile() -> Vec<(&'static str, Vec<f32>)> {
    let mut random = Random(7);
    let mut blocks = vec![
        ("zeros", vec![0.0; 256]),
        ("negative zeros", vec![-0.0; 256]),
        ("a constant", vec![0.37; 256]),
        ("a negative constant", vec![-0.37; 256]),
        ("the least subnormal", vec![f32::from_bits(1); 256]),
        ("subnormals", (0..256u32).map(|i| f32::from_bits(i * 1009)).collect()),
        ("below every f16", (0..256).map(|i| (i - 128) as f32 * 1e-12).collect()),
        ("around the least f16", (0..256).map(|i| (i - 128) as f32 * 1e-9).collect()),
        ("the largest f16", (0..256).map(|i| if i % 2 == 0 { 65504.0 } else { -65504.0 }).collect()),
        ("only positive", (0..256).map(|i| 1.0 + i as f32 / 256.0).collect()),
        ("only negative", (0..256).map(|i| -1.0 - i as f32 / 256.0).collect()),
        ("a ramp", (0..256).map(|i| (i - 128) as f32 / 128.0).collect()),
    ];
    let mut spike = vec![1e-4; 256];
    spike[100] = -3.0;
    blocks.push(("one large value", spike));
    let mut alone = vec![0.0; 256];
    alone[255] = 1.0;
    blocks.push(("one value that is not zero", alone));
    let wide = (0..256).map(|i| random.next() * 10f32.powi(-(i / 16))).collect();
    blocks.push(("runs of very different size", wide));
    blocks
}

#[test]
fn errors_stay_within_what_the_format_allows() {
    for row in FORMATS {
        let mut random = Random(3);
        for scale in [1.0, 1e-2, 1e-5, 1e3] {
            let x: Vec<f32> = (0..4096).map(|_| scale * random.next()).collect();
            check_bound(row.format, &x, "random");
            let heavy: Vec<f32> = x.iter().map(|x| x * (x / scale).powi(4)).collect();
            check_bound(row.format, &heavy, "heavy tails");
        }
        for (name, x) in hostile() {
            check_bound(row.format, &x, name);
        }
    }
}

#[test]
fn every_machine_makes_the_same_bytes() {
    let mut random = Random(11);
    let mut x: Vec<f32> = (0..8192).map(|_| random.next()).collect();
    x.extend(hostile().into_iter().flat_map(|(_, x)| x));
    let importance: Vec<f32> = (0..256).map(|_| random.next().powi(2)).collect();
    for encoder in encoders().iter().filter(|encoder| encoder.isa.available()) {
        for importance in [None, Some(importance.as_slice())] {
            let mut bytes = vec![0; encoder.format.row_bytes(x.len()).unwrap()];
            encoder.encode(&x, importance, &mut bytes).unwrap();
            let portable = encode(encoder.format, Isa::Generic, &x, importance);
            let size = encoder.format.block_bytes();
            let differ = bytes.chunks(size).zip(portable.chunks(size)).position(|(a, b)| a != b);
            assert_eq!(
                differ, None,
                "{} on {}: block differs from the portable one",
                encoder.format, encoder.isa
            );
        }
    }
}

#[test]
fn what_is_no_number_is_an_error() {
    for row in FORMATS {
        let mut bytes = vec![0; row.format.row_bytes(512).unwrap()];
        let encoder = Encoder::of(row.format, Isa::best());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0; 512];
            x[300] = bad;
            assert_eq!(encoder.encode(&x, None, &mut bytes), Err(EncodeError::NotFinite { index: 300 }));
        }
        let mut x = vec![1.0; 512];
        x[5] = -1e30;
        let any = matches!(row.format, Format::F32 | Format::BF16 | Format::MXFP4);
        let expected = if any {
            Ok(())
        } else {
            Err(EncodeError::TooLarge { index: 5, value: -1e30, format: row.format })
        };
        assert_eq!(encoder.encode(&x, None, &mut bytes), expected, "{}", row.name);
        for bad in [f32::NAN, f32::INFINITY, -1.0] {
            let mut importance = vec![1.0; 512];
            importance[9] = bad;
            let outcome = encoder.encode(&[0.5; 512], Some(&importance), &mut bytes);
            assert_eq!(outcome, Err(EncodeError::Importance { column: 9 }));
        }
    }
}

#[test]
fn importance_of_all_sizes_gives_numbers() {
    let mut random = Random(5);
    let x: Vec<f32> = (0..512).map(|_| random.next()).collect();
    let patterns: [fn(usize) -> f32; 6] = [
        |_| 0.0,
        |_| 1e-30,
        |_| 1e30,
        |i| (i % 2) as f32,
        |i| 10f32.powi((i % 60) as i32 - 30),
        |i| f32::from_bits(i as u32),
    ];
    for row in FORMATS {
        for pattern in patterns {
            let importance: Vec<f32> = (0..512).map(pattern).collect();
            let bytes = encode(row.format, Isa::best(), &x, Some(&importance));
            let y = decode(row.format, &bytes, x.len());
            assert!(y.iter().all(|y| y.is_finite() && y.abs() < 4.0), "{}", row.name);
        }
    }
}

#[test]
fn what_was_decoded_is_encoded_again_without_loss() {
    // Values on the grid come back: exactly from formats with one scale, nearly so from nested ones.
    let mut random = Random(9);
    let x: Vec<f32> = (0..4096).map(|_| random.next()).collect();
    for row in FORMATS {
        let once = decode(row.format, &encode(row.format, Isa::best(), &x, None), x.len());
        let twice = decode(row.format, &encode(row.format, Isa::best(), &once, None), x.len());
        let power = |x: &[f32], y: &[f32]| -> f64 {
            x.iter().zip(y).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum()
        };
        let (first, second) = (power(&x, &once), power(&once, &twice));
        assert!(second <= 0.3 * first, "{}: {second:e} after {first:e}", row.name);
    }
}

/// All matrices of stories260K as rows of 256 values, as `tests/quantize/make.py` reads them.
fn stories() -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/stories260K-f32.gguf");
    let file = Gguf::open(&path).unwrap();
    let matrices = file.tensors().iter().filter(|tensor| tensor.dims.len() > 1);
    let mut values: Vec<f32> = matrices
        .flat_map(|tensor| decode(Format::F32, tensor.data.as_slice(), tensor.dims.n_values()))
        .collect();
    values.truncate(values.len() / 256 * 256);
    values
}

#[test]
fn errors_are_not_above_those_of_ggml() {
    let golden = golden();
    let x = stories();
    let importance: Vec<f32> = (0..256).map(|j| ((j * 37 % 101 + 1) as f32 / 50.0).powi(2)).collect();
    let ones = vec![1.0; 256];
    let formats = golden["errors"].as_object().unwrap();
    // F32 is exact and the library quantizes no BF16.
    assert_eq!(formats.len(), FORMATS.len() - 2);
    for (name, errors) in formats {
        let format = Format::from_name(name).unwrap();
        let given = Some(importance.as_slice());
        for (key, given, scale) in
            [("plain", None, &ones), ("weighted", given, &importance), ("weighted_plain", given, &ones)]
        {
            let y = decode(format, &encode(format, Isa::best(), &x, given), x.len());
            let squares = x.iter().zip(&y).enumerate();
            let sum: f64 = squares
                .map(|(i, (&x, &y))| f64::from(scale[i % 256]) * (f64::from(x) - f64::from(y)).powi(2))
                .sum();
            let weight: f64 = scale.iter().map(|&w| f64::from(w)).sum::<f64>() * (x.len() / 256) as f64;
            let (ours, theirs) = ((sum / weight).sqrt(), errors[key].as_f64().unwrap());
            // This importance spans a factor of 2,500. What it buys in the columns that matter may cost a little in the
            // others; on real tensors both errors are below ggml's.
            let margin = if key == "weighted_plain" { 0.06 } else { 1e-6 };
            assert!(ours <= theirs * (1.0 + margin), "{name}, {key}: {ours:e}, ggml {theirs:e}");
        }
    }
}

#[test]
fn decoders_take_every_block() {
    // Encoders fill all bits that decoders read: what is left over in the buffer must not show.
    let mut random = Random(13);
    let x: Vec<f32> = (0..1024).map(|_| random.next()).collect();
    for row in FORMATS {
        let mut other = vec![0xaa; row.format.row_bytes(x.len()).unwrap()];
        Encoder::of(row.format, Isa::best()).encode(&x, None, &mut other).unwrap();
        assert_eq!(encode(row.format, Isa::best(), &x, None), other, "{}", row.name);
        assert_eq!(ops(row.format).format, row.format);
    }
}
