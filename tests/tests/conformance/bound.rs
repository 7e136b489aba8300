//! Numbers with a bound on how far a correct kernel may be from them: the derivation is in `main.rs`.

use cchaha_kernels::formats;
use cchaha_plan::{Activation, Format};

/// Half an ulp of f32, relative: one rounding.
pub(crate) const U: f64 = 1.0 / (1 << 24) as f64;

/// Below the least normal f32 precision is absolute.
pub(crate) const TINY: f64 = f32::MIN_POSITIVE as f64;

/// Values that every kernel which rounds activations rounds together, at least.
pub(crate) const RUN: usize = 32;

/// How kernels round activations to whole steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Steps {
    /// Of the largest value.
    pub(crate) most: f64,
    /// Values that may be rounded together, at most.
    group: usize,
}

impl Steps {
    pub(crate) const FINE: Steps = Steps { most: 32639.0, group: 256 };
    /// Of tokens that are only read.
    pub(crate) const COARSE: Steps = Steps { most: 127.0, group: RUN };
}

/// Groups of smaller values may count as zero.
const FAINT: f64 = 1e-30;

/// Relative rounding of an f16.
pub(crate) const U16: f64 = 1.0 / 2048.0;

/// What a kernel does to the operands of a product beside f32 roundings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rounding {
    /// Nothing.
    None,
    /// Activations that meet quantized weights become whole steps of their group.
    Steps(Steps),
    /// Weights and activations become half floats.
    Halves {
        /// Products and sums of 16 of them too.
        sums: bool,
    },
}

impl Rounding {
    /// Steps on either side of zero.
    pub(crate) fn most(self) -> f64 {
        if let Rounding::Steps(steps) = self { steps.most } else { Steps::FINE.most }
    }
}

/// Columns whose products are added up in half floats.
const SHORT: usize = 16;

/// Half floats smaller than the largest of their row by this may count as zero, and products of two by the square of 2^-11 times that.
const LEAST: f64 = 1.0 / (1 << 18) as f64;
const LEAST_PRODUCT: f64 = 1.0 / (1 << 22) as f64;

/// Values that are known exactly or up to an error.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub(crate) value: Vec<f64>,
    pub(crate) error: Vec<f64>,
}

impl Bound {
    pub(crate) fn exact(values: &[f32]) -> Bound {
        Bound { value: values.iter().map(|&x| f64::from(x)).collect(), error: vec![0.0; values.len()] }
    }

    /// Value and error of one.
    pub(crate) fn at(&self, i: usize) -> (f64, f64) {
        (self.value[i], self.error[i])
    }

    fn build(pairs: impl Iterator<Item = (f64, f64)>) -> Bound {
        let (value, error) = pairs.unzip();
        Bound { value, error }
    }

    fn pairs(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.value.iter().copied().zip(self.error.iter().copied())
    }

    pub(crate) fn add(&self, other: &Bound) -> Bound {
        Bound::build(self.pairs().zip(other.pairs()).map(|((a, ea), (b, eb))| {
            let error = ea + eb;
            (a + b, error + U * ((a + b).abs() + error))
        }))
    }

    pub(crate) fn mul(&self, other: &Bound) -> Bound {
        Bound::build(self.pairs().zip(other.pairs()).map(|((a, ea), (b, eb))| {
            let error = a.abs() * eb + b.abs() * ea + ea * eb;
            (a * b, error + U * ((a * b).abs() + error) + TINY)
        }))
    }

    pub(crate) fn scale(&self, factor: Bound) -> Bound {
        let n = self.value.len();
        self.mul(&Bound { value: vec![factor.value[0]; n], error: vec![factor.error[0]; n] })
    }

    /// `x * sigmoid(t(x))`. The slope of both activations is at most 1.13 in size; exp is good to 4 roundings plus the
    /// relative error of its argument (6 roundings), and is cut off where it leaves the normal numbers.
    pub(crate) fn activate(&self, activation: Activation) -> Bound {
        Bound::build(self.pairs().map(|(x, e)| {
            let t = match activation {
                Activation::Silu => x,
                Activation::GeluTanh => (8.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3)),
            };
            let sigmoid = 1.0 / (1.0 + (-t).exp());
            let of_exp = (1.0 - sigmoid) * (4.0 + 6.0 * t.abs().min(100.0)) * U;
            let y = x * sigmoid;
            (y, 1.13 * e + y.abs() * (of_exp + 4.0 * U) + x.abs() * 2.0 * TINY + TINY)
        }))
    }
}

/// A dequantized matrix with the sizes of the terms its kernels add.
pub(crate) struct Weights {
    pub(crate) cols: usize,
    /// `[rows, cols]`.
    pub(crate) value: Vec<f64>,
    /// `|scale| (|q| + 2 z) + |offset|` of every value, at least its size; `z` is the largest `|q|` where there are no offsets.
    pub(crate) terms: Vec<f64>,
    /// Whether kernels may quantize the activations it meets.
    pub(crate) quantized: bool,
    /// `|scale| 128 + |offset|` of every value, or its size where it is no integer: no less than what kernels take for it.
    most: Vec<f64>,
}

impl Weights {
    pub(crate) fn new(format: Format, cols: usize, bytes: &[u8]) -> Weights {
        let n = bytes.len() / format.block_bytes() * format.block_len();
        let mut values = vec![0.0; n];
        formats::dequantize(format, bytes, &mut values);
        let value: Vec<f64> = values.into_iter().map(f64::from).collect();
        let Some(blocks) = formats::ops(format).blocks else {
            let terms: Vec<f64> = value.iter().map(|w| w.abs()).collect();
            return Weights { cols, value, most: terms.clone(), terms, quantized: false };
        };
        let (len, mut terms) = (format.block_len(), Vec::with_capacity(n));
        let subs = len / blocks.sub;
        let (mut q, mut scale, mut offset) =
            (vec![0; n], vec![0.0f32; n / blocks.sub], vec![0.0f32; n / blocks.sub]);
        for (i, block) in bytes.chunks_exact(format.block_bytes()).enumerate() {
            let sides = i * subs..(i + 1) * subs;
            (blocks.unpack)(block, &mut q[i * len..][..len], &mut scale[sides.clone()], &mut offset[sides]);
        }
        let symmetric = offset.iter().all(|&offset| offset == 0.0);
        let z = if symmetric { q.iter().map(|q| f64::from(*q).abs()).fold(0.0, f64::max) } else { 0.0 };
        let size = |i: usize, q: f64| {
            let (scale, offset) = (f64::from(scale[i / blocks.sub]), f64::from(offset[i / blocks.sub]));
            scale.abs() * q + offset.abs()
        };
        terms.extend(q.iter().enumerate().map(|(i, &q)| size(i, f64::from(q).abs() + 2.0 * z)));
        let most = (0..n).map(|i| size(i, 128.0)).collect();
        Weights { cols, value, most, terms, quantized: true }
    }

    /// `out[r] = sum_c w[r, c] * x[c]`.
    pub(crate) fn matmul(&self, x: &Bound, rounding: Rounding) -> Bound {
        if let Rounding::Halves { sums } = rounding {
            return self.narrow_matmul(x, sums);
        }
        let mut input = x.error.clone();
        let mut size: Vec<f64> = x.pairs().map(|(x, e)| x.abs() + e).collect();
        if let Rounding::Steps(Steps { most, group }) = rounding
            && self.quantized
        {
            for start in (0..self.cols).step_by(group) {
                let group = start..(start + group).min(self.cols);
                let largest = size[group.clone()].iter().copied().fold(0.0, f64::max);
                let half = if on_grid(&x.value[group.clone()], &x.error[group.clone()], largest / most) {
                    0.0
                } else if largest < FAINT {
                    largest
                } else {
                    // Half a step, and a little more because its place is computed in f32: three roundings of a
                    // number of up to `most` steps.
                    largest / most * (0.5 + most * 3.0 * U)
                };
                for c in group {
                    input[c] += half;
                    size[c] += half;
                }
            }
        }
        let n = self.cols as f64;
        Bound::build(self.value.chunks_exact(self.cols).zip(self.terms.chunks_exact(self.cols)).map(
            |(w, terms)| {
                let (mut sum, mut error) = (0.0, 0.0);
                for c in 0..self.cols {
                    sum += w[c] * x.value[c];
                    error += terms[c] * (input[c] + (n + 8.0) * U * size[c] + TINY);
                }
                (sum, error + TINY)
            },
        ))
    }
}

impl Weights {
    /// The same by half floats: see `main.rs`.
    fn narrow_matmul(&self, x: &Bound, sums: bool) -> Bound {
        let n = self.cols as f64;
        let most_x = x.pairs().map(|(x, e)| x.abs() + e).fold(0.0, f64::max);
        // What becomes of a value beside others of at most `most`.
        let lost = |v: f64, most: f64| {
            if most < FAINT {
                v.abs()
            } else if is_half(v) && v.abs() > 2.0 * LEAST * most {
                0.0
            } else {
                2.0 * U16 * v.abs() + LEAST * most
            }
        };
        let x_lost: Vec<f64> =
            x.pairs().map(|(x, e)| e + if x == 0.0 { 0.0 } else { lost(x, most_x) }).collect();
        let rows = self.value.chunks_exact(self.cols).zip(self.terms.chunks_exact(self.cols));
        Bound::build(rows.zip(self.most.chunks_exact(self.cols)).map(|((w, terms), most)| {
            let most_w = most.iter().copied().fold(0.0, f64::max);
            let (mut sum, mut error) = (0.0, 0.0);
            for start in (0..self.cols).step_by(SHORT) {
                let short = start..(start + SHORT).min(self.cols);
                let products = short.clone().filter(|&c| x.value[c] != 0.0 || x_lost[c] != 0.0).count();
                for c in short {
                    let (w, x, w_lost, x_lost) = (w[c], x.value[c], lost(w[c], most_w), x_lost[c]);
                    sum += w * x;
                    if x == 0.0 && x_lost == 0.0 {
                        continue;
                    }
                    let (w_size, x_size) = (w.abs() + w_lost, x.abs() + x_lost);
                    error += w_size * x_lost + x.abs() * w_lost;
                    // One product that is a half float, and no sum: nothing is rounded.
                    let exact = products == 1 && w_lost == 0.0 && x_lost == 0.0 && is_half(w * x);
                    if sums && !exact {
                        error += SHORT as f64 * U16 * w_size * x_size + 2.0 * LEAST_PRODUCT * most_w * most_x;
                    }
                    error += (n + 8.0) * U * (terms[c] + w_lost) * x_size + TINY;
                }
            }
            (sum, error + TINY)
        }))
    }
}

/// Whether a value has no more bits than a half float, wherever they begin.
fn is_half(x: f64) -> bool {
    x.to_bits() << 22 == 0
}

/// Whether rounding a group loses nothing: all values known, and whole multiples of a step that is a power of two.
fn on_grid(x: &[f64], error: &[f64], step: f64) -> bool {
    step >= FAINT
        && step.log2().fract() == 0.0
        && error.iter().all(|&e| e == 0.0)
        && x.iter().all(|x| (x / step).fract() == 0.0)
}

/// Compares and returns the largest share of the tolerance that was used.
pub(crate) fn compare(what: &str, got: &[f32], want: &[f32], error: impl Fn(usize) -> f64) -> f64 {
    assert_eq!(got.len(), want.len(), "{what}: number of values");
    let mut worst = 0.0f64;
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        assert!(want.is_finite(), "{what}: value {i} of the oracle is {want}: the case is no test");
        // The oracle's logits were rounded to f32 as well.
        let tolerance = error(i) + U * f64::from(want).abs();
        let distance = (f64::from(got) - f64::from(want)).abs();
        assert!(
            distance <= tolerance,
            "{what}: value {i} is {got:e}, not {want:e}: off by {distance:.2e}, allowed {tolerance:.2e}"
        );
        if distance > 0.0 {
            worst = worst.max(distance / tolerance);
        }
    }
    worst
}

/// Compares with rows of bounds, each at the front of a row of `vocab` values with zeros behind. The oracle has to agree with the
/// bounds' own values too, up to the rounding of f64: they were derived without it.
pub(crate) fn within(what: &str, got: &[f32], want: &[f32], bounds: &[Bound], vocab: usize) -> f64 {
    let place = |values: fn(&Bound) -> &[f64], i: usize| {
        values(&bounds[i / vocab]).get(i % vocab).copied().unwrap_or(0.0)
    };
    let error = |i: usize| place(|bound| &bound.error, i);
    let values: Vec<f32> = (0..want.len()).map(|i| place(|bound| &bound.value, i) as f32).collect();
    // Two roundings to f32; f64 rounds 2^-29 as coarsely as the f32 the bound counts.
    compare(&format!("{what}: the oracle"), want, &values, |i| {
        1e-7 * error(i) + 2.0 * U * f64::from(values[i]).abs()
    });
    compare(what, got, want, error)
}
