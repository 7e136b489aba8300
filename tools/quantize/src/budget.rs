//! The best formats for a given size, by measurement.
//!
//! ```text
//! cost(tensor, format) = s(group) * E(tensor, format)
//! E   sum over rows of sum_j importance_j (x_j - decoded_j)^2: the energy of the error in the tensor's output
//! s   how much that energy costs: the KL divergence of the whole model with only that group of tensors stored in about
//!     four bits, over their E
//! ```
//!
//! A group is one kind of tensor in one band of layers. To second order in the errors the divergences of small
//! independent errors add up, so the sum of the costs is what the file's divergence will be, and [`allocate`] makes it
//! least.

use std::collections::BTreeMap;
use std::sync::Arc;

use cchaha::Model;
use cchaha::kernels::encode::Encoder;
use cchaha::kernels::formats::dequantize;
use cchaha::kernels::{Cpu, Isa};
use cchaha::plan::{Bytes, Format, Plan};
use cchaha_cli::interrupt::Stoppable;
use cchaha_cli::output::progress;

use crate::allocate::{Choice, allocate};
use crate::evaluate::{Evaluation, Windows, kl_divergence, log_sum_exp};
use crate::exit::{Failure, Result};
use crate::imatrix::Imatrix;
use crate::measured::Measured;
use crate::pipeline::ordered;
use crate::recipe::{is_quantizable, layer};
use crate::source::{Source, SourceTensor};

/// What a tensor may become, for rows of whole 256-value blocks and for others.
const WIDE: [Format; 8] = [
    Format::Q2_K,
    Format::Q3_K,
    Format::IQ4_XS,
    Format::Q4_K,
    Format::Q5_K,
    Format::Q6_K,
    Format::Q8_0,
    Format::F16,
];
const NARROW: [Format; 6] =
    [Format::IQ4_NL, Format::Q4_1, Format::Q5_0, Format::Q5_1, Format::Q8_0, Format::F16];

/// Bands of layers that are measured together.
const BANDS: usize = 4;

/// Values of a tensor whose errors are measured; of more, every few rows.
const SAMPLE: usize = 1 << 20;

/// What is measured, and on what.
pub(crate) struct Search<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) model: &'a Model,
    pub(crate) imatrix: &'a Imatrix,
    pub(crate) windows: &'a Windows,
    pub(crate) threads: usize,
}

/// What was found.
pub(crate) struct Found {
    pub(crate) formats: Vec<Format>,
    /// The divergence this should have on the text it was measured on, in nats.
    pub(crate) predicted: f64,
}

/// A tensor that has a choice.
struct Candidate {
    tensor: usize,
    group: String,
    options: Vec<Format>,
    /// Of each option.
    energy: Vec<f64>,
}

impl Search<'_> {
    /// The formats with the least divergence whose data take at most `bytes`.
    ///
    /// # Errors
    /// Where the smallest formats take more, the model cannot be run, or Ctrl-C came.
    pub(crate) fn run(
        &self,
        backend: &Cpu,
        bytes: u64,
        measured: &mut Measured,
        stop: &Stoppable,
    ) -> Result<Found> {
        let tensors = self.source.tensors();
        let mut candidates = self.candidates()?;
        self.measure_energy(&mut candidates, stop)?;
        let costs = self.measure_groups(backend, &candidates, measured, stop)?;

        let mut formats: Vec<Format> = tensors.iter().map(kept).collect();
        let chosen: Vec<usize> = candidates.iter().map(|candidate| candidate.tensor).collect();
        let size = |tensor: &SourceTensor, format| tensor.dims.n_bytes(format).unwrap_or(usize::MAX) as u64;
        let fixed = (0..tensors.len()).filter(|i| !chosen.contains(i));
        let fixed: u64 = fixed.map(|i| size(&tensors[i], formats[i])).sum();
        let choices: Vec<Vec<Choice>> = candidates
            .iter()
            .map(|candidate| {
                let options = candidate.options.iter().zip(&candidate.energy);
                let cost = costs.get(&candidate.group).copied().unwrap_or(0.0);
                let bytes = |format| size(&tensors[candidate.tensor], format);
                options
                    .map(|(&format, energy)| Choice { bytes: bytes(format), cost: cost * energy })
                    .collect()
            })
            .collect();
        let least: u64 = choices.iter().filter_map(|options| options.iter().map(|o| o.bytes).min()).sum();
        let picked = bytes.checked_sub(fixed).and_then(|budget| allocate(&choices, budget)).ok_or_else(|| {
            Failure::usage(format!(
                "{bytes} bytes are too few: the smallest formats of these tensors take {}; ask for a larger size",
                fixed + least
            ))
        })?;
        let mut predicted = 0.0;
        for ((candidate, options), &i) in candidates.iter().zip(&choices).zip(&picked) {
            formats[candidate.tensor] = candidate.options[i];
            predicted += options[i].cost;
        }
        Ok(Found { formats, predicted })
    }

    fn candidates(&self) -> Result<Vec<Candidate>> {
        let layers = self
            .source
            .tensors()
            .iter()
            .filter_map(|tensor| layer(&tensor.name))
            .max()
            .map_or(1, |last| last + 1);
        let mut candidates = Vec::new();
        for (i, tensor) in
            self.source.tensors().iter().enumerate().filter(|(_, tensor)| is_quantizable(tensor))
        {
            let cols = tensor.dims.cols();
            let set: &[Format] = if cols.is_multiple_of(256) { &WIDE } else { &NARROW };
            let fits = |format: &&Format| cols.is_multiple_of(format.block_len());
            let options: Vec<Format> = set.iter().filter(fits).copied().collect();
            let kind = tensor.name.split('.').rev().nth(1).unwrap_or(&tensor.name);
            let band = layer(&tensor.name).map_or(0, |layer| layer * BANDS.min(layers) / layers);
            let group = format!("{kind} {band}");
            candidates.push(Candidate { tensor: i, group, energy: vec![0.0; options.len()], options });
        }
        match candidates.is_empty() {
            true => Err(Failure::usage("there is no tensor whose format could be chosen")),
            false => Ok(candidates),
        }
    }

    /// The importance of the columns of each matrix of a tensor; ones where it was never multiplied with anything.
    fn importance(&self, tensor: &SourceTensor) -> Result<Vec<Vec<f32>>> {
        let matrices = tensor.dims.iter().skip(2).product();
        let known = self.imatrix.of(&tensor.name, tensor.dims)?;
        Ok(known.unwrap_or_else(|| vec![vec![1.0; tensor.dims.cols()]; matrices]))
    }

    fn measure_energy(&self, candidates: &mut [Candidate], stop: &Stoppable) -> Result {
        let energies: Result<Vec<Vec<f64>>> = {
            let work = |i: usize| {
                if stop.requested() { Err(Failure::interrupted()) } else { self.energies(&candidates[i]) }
            };
            ordered(self.threads, candidates.len(), work, |next| {
                (0..candidates.len()).map(|_| next()).collect()
            })
        };
        for (candidate, energy) in candidates.iter_mut().zip(energies?) {
            candidate.energy = energy;
        }
        Ok(())
    }

    /// The energy of a tensor's error in each of its options, from a sample of its rows.
    fn energies(&self, candidate: &Candidate) -> Result<Vec<f64>> {
        let tensor = &self.source.tensors()[candidate.tensor];
        let (rows, cols) = (tensor.dims.rows(), tensor.dims.cols());
        let per_matrix = tensor.dims.get(1).copied().unwrap_or(1);
        let importance = self.importance(tensor)?;
        let step = (rows * cols).div_ceil(SAMPLE).min(rows);
        let sampled = rows.div_ceil(step);
        let (mut x, mut y) = (vec![0.0; cols], vec![0.0; cols]);
        let mut energy = vec![0.0; candidate.options.len()];
        for row in (0..rows).step_by(step) {
            self.source.read_rows(candidate.tensor, row..row + 1, &mut x)?;
            let weights = &importance[row / per_matrix];
            for (&format, energy) in candidate.options.iter().zip(&mut energy) {
                let mut bytes = vec![0; format.row_bytes(cols).expect("invariant: options fit")];
                encode(tensor, format, &x, weights, &mut bytes)?;
                dequantize(format, &bytes, &mut y);
                let errors = x
                    .iter()
                    .zip(&y)
                    .zip(weights)
                    .map(|((&x, &y), &w)| f64::from(w) * f64::from(x - y).powi(2));
                *energy += errors.sum::<f64>() * rows as f64 / sampled as f64;
            }
        }
        Ok(energy)
    }

    /// Divergence per energy of each group.
    fn measure_groups(
        &self,
        backend: &Cpu,
        candidates: &[Candidate],
        measured: &mut Measured,
        stop: &Stoppable,
    ) -> Result<BTreeMap<String, f64>> {
        // Made when the first group is measured.
        let mut base: Option<(Arc<Plan>, Vec<f32>)> = None;
        let mut groups: BTreeMap<String, Vec<&Candidate>> = BTreeMap::new();
        for candidate in candidates {
            groups.entry(candidate.group.clone()).or_default().push(candidate);
        }
        let per_group = self.windows.tokens.len() * self.windows.len;
        let total = groups.len() * per_group;
        let mut bar = progress("measuring");
        let mut costs = BTreeMap::new();
        for (number, (group, members)) in groups.into_iter().enumerate() {
            let energy: f64 = members.iter().map(|member| member.energy[probe(&member.options)]).sum();
            let divergence = match (measured.get(&group), &mut base) {
                (Some(divergence), _) => divergence,
                (None, base) => {
                    let (plan, logits) = match base {
                        Some(base) => base,
                        None => {
                            let plan = self.fast_plan(candidates)?;
                            let logits = self.logits(&plan, backend)?;
                            base.insert((plan, logits))
                        }
                    };
                    let mut changed = (**plan).clone();
                    for member in &members {
                        self.replace(&mut changed, member, member.options[probe(&member.options)])?;
                    }
                    let divergence = self.divergence(&Arc::new(changed), backend, logits, stop)?;
                    measured.put(&group, divergence)?;
                    divergence
                }
            };
            tracing::info!("{group}: {divergence:.3e} nats in about four bits");
            // A group that costs nothing measurable still must not be given away.
            costs.insert(group, divergence.max(1e-7) / energy.max(f64::MIN_POSITIVE));
            bar.at((number + 1) * per_group, total);
        }
        Ok(costs)
    }

    /// The model with its floats in Q8_0, whose kernels are several times faster; what that loses is in everything that
    /// is compared.
    fn fast_plan(&self, candidates: &[Candidate]) -> Result<Arc<Plan>> {
        let mut plan = (**self.model.plan()).clone();
        for candidate in candidates {
            let float = self.source.tensors()[candidate.tensor].format.block_len() == 1;
            if float && candidate.options.contains(&Format::Q8_0) {
                self.replace(&mut plan, candidate, Format::Q8_0)?;
            }
        }
        Ok(Arc::new(plan))
    }

    /// Puts a tensor in another format into a plan.
    fn replace(&self, plan: &mut Plan, candidate: &Candidate, format: Format) -> Result {
        let tensor = &self.source.tensors()[candidate.tensor];
        let (rows, cols) = (tensor.dims.rows(), tensor.dims.cols());
        let per_matrix = tensor.dims.get(1).copied().unwrap_or(1);
        let importance = self.importance(tensor)?;
        let row_bytes = format.row_bytes(cols).expect("invariant: options fit");
        let encoded: Result<Vec<Vec<u8>>> = {
            // A thousand rows or so at a time keep all threads busy.
            let step = per_matrix.min(1024);
            let firsts: Vec<usize> =
                (0..rows).step_by(per_matrix).flat_map(|m| (m..m + per_matrix).step_by(step)).collect();
            let work = |i: usize| {
                let first = firsts[i];
                let end = (first + step).min((first / per_matrix + 1) * per_matrix);
                let mut x = vec![0.0; (end - first) * cols];
                self.source.read_rows(candidate.tensor, first..end, &mut x)?;
                let mut bytes = vec![0; row_bytes * (end - first)];
                encode(tensor, format, &x, &importance[first / per_matrix], &mut bytes)?;
                Ok(bytes)
            };
            ordered(self.threads, firsts.len(), work, |next| (0..firsts.len()).map(|_| next()).collect())
        };
        let bytes = Bytes::from(encoded?.concat());
        for weight in plan.weights.iter_mut().filter(|weight| weight.name == tensor.name) {
            weight.format = format;
            weight.bytes = bytes.clone();
        }
        Ok(())
    }

    /// The logits of all measured tokens, one after the other.
    fn logits(&self, plan: &Arc<Plan>, backend: &Cpu) -> Result<Vec<f32>> {
        let mut all = Vec::with_capacity(self.windows.measured() * plan.vocab);
        self.each_logits(plan, backend, &mut |logits| {
            all.extend_from_slice(logits);
            Ok(())
        })?;
        Ok(all)
    }

    /// Mean divergence of a plan from the one that made `base`.
    fn divergence(&self, plan: &Arc<Plan>, backend: &Cpu, base: &[f32], stop: &Stoppable) -> Result<f64> {
        let mut rows = base.chunks_exact(plan.vocab);
        let mut sum = 0.0;
        self.each_logits(plan, backend, &mut |logits| {
            if stop.requested() {
                return Err(Failure::interrupted());
            }
            if let Some(base) = rows.next() {
                sum += kl_divergence(base, logits, [log_sum_exp(base)?, log_sum_exp(logits)?]);
            }
            Ok(())
        })?;
        match sum.is_finite() {
            true => Ok(sum / self.windows.measured() as f64),
            false => Err(Failure::model("the model gave logits that are not numbers")),
        }
    }

    fn each_logits(&self, plan: &Arc<Plan>, backend: &Cpu, each: &mut dyn FnMut(&[f32]) -> Result) -> Result {
        let mut evaluation = Evaluation::new(plan, backend, self.windows.len)?;
        for tokens in &self.windows.tokens {
            evaluation.reset();
            let (context, measured) = tokens.split_at(self.windows.half());
            evaluation.skip(context)?;
            evaluation.logits(&measured[..measured.len() - 1], &mut |_, logits| each(logits))?;
        }
        Ok(())
    }
}

fn encode(tensor: &SourceTensor, format: Format, x: &[f32], weights: &[f32], out: &mut [u8]) -> Result {
    let outcome = Encoder::of(format, Isa::best()).encode(x, Some(weights), out);
    outcome.map_err(|error| Failure::model(format!("{}: {error}", tensor.name)))
}

/// Which option is measured: the one nearest to four and a half bits.
fn probe(options: &[Format]) -> usize {
    let distance = |format: &Format| (format.bits_per_weight() - 4.5).abs();
    let nearest = options.iter().enumerate().min_by(|a, b| distance(a.1).total_cmp(&distance(b.1)));
    nearest.map_or(0, |(i, _)| i)
}

/// What a tensor without a choice is stored in.
fn kept(tensor: &SourceTensor) -> Format {
    if tensor.format.block_len() == 1 { Format::F32 } else { tensor.format }
}
