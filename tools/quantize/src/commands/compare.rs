//! `quantize compare A B`: how far B is from A, tensor by tensor and in what they say about a text.

use std::path::PathBuf;
use std::sync::Arc;

use cchaha::gguf::{Gguf, TensorInfo};
use cchaha::kernels::formats::dequantize;
use cchaha::{Model, plan::Plan};
use cchaha_cli::args::positive;
use cchaha_cli::interrupt::Stoppable;
use cchaha_cli::output::{Align, Out, Table, Unit, bytes, progress, progress_in};
use clap::{Args, ValueHint};
use serde_json::{Value, json};

use crate::commands::convert::cores;
use crate::evaluate::{Evaluation, ROWS, Windows, backend, kl_divergence, log_sum_exp, top};
use crate::exit::{Failure, Result};
use crate::picture;
use crate::pipeline::ordered;
use crate::source::local;

const EXAMPLES: &str = "\
Examples:
  quantize compare model-f16.gguf model-q4_k_m.gguf --text held-out.txt
  quantize compare model-f16.gguf model-q4_k_m.gguf --json > loss.json
  quantize compare model-f16.gguf model-q4_k_m.gguf --svg loss.svg

rel. RMSE is the root mean square error over the root mean square of A's values. KL divergence
is that of B's next-token distribution from A's in nats, over the second half of each window of
the text; top-1 agreement is how often both find the same token likeliest. Use a text that was
not used to make B.";

/// Measure how far one file of a model is from another
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Compare {
    /// GGUF file of the original
    #[arg(value_name = "A", value_hint = ValueHint::FilePath)]
    a: PathBuf,

    /// GGUF file of what was made of it
    #[arg(value_name = "B", value_hint = ValueHint::FilePath)]
    b: PathBuf,

    /// Also run both on this text
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    text: Option<PathBuf>,

    /// Tokens of a window
    #[arg(short, long, value_name = "N", value_parser = positive, default_value_t = 512)]
    ctx: usize,

    /// Windows to use at most
    #[arg(long, value_name = "N", value_parser = positive)]
    windows: Option<usize>,

    /// Worker threads [default: one per physical core]
    #[arg(short = 'j', long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// Draw the errors of all tensors into this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    svg: Option<PathBuf>,
}

/// The error of one tensor.
#[derive(Clone, Debug)]
pub(crate) struct TensorError {
    pub(crate) name: String,
    from: String,
    pub(crate) to: String,
    rmse: f64,
    /// Relative to the root mean square of the original.
    pub(crate) relative: f64,
    largest: f64,
}

/// What both models say about a text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Divergence {
    /// Per token, in nats, sorted.
    kl: Vec<f64>,
    agreed: usize,
    /// Sums of the negated log-probabilities of the text.
    nll: [f64; 2],
}

impl Divergence {
    /// The mean KL divergence, and the standard error of that mean.
    pub(crate) fn mean(&self) -> (f64, f64) {
        let n = self.kl.len() as f64;
        let mean = self.kl.iter().sum::<f64>() / n;
        let variance = self.kl.iter().map(|kl| (kl - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        (mean, (variance / n).sqrt())
    }

    fn quantile(&self, share: f64) -> f64 {
        let last = self.kl.len().saturating_sub(1);
        self.kl.get((share * last as f64).round() as usize).copied().unwrap_or(0.0)
    }

    pub(crate) fn agreement(&self) -> f64 {
        self.agreed as f64 / self.kl.len() as f64
    }

    fn perplexity(&self, which: usize) -> f64 {
        (self.nll[which] / self.kl.len() as f64).exp()
    }

    fn json(&self) -> Value {
        let (mean, error) = self.mean();
        json!({
            "tokens": self.kl.len(),
            "kl_mean": mean,
            "kl_mean_standard_error": error,
            "kl_median": self.quantile(0.5),
            "kl_99": self.quantile(0.99),
            "kl_max": self.quantile(1.0),
            "top1_agreement": self.agreement(),
            "perplexity_a": self.perplexity(0),
            "perplexity_b": self.perplexity(1),
        })
    }
}

impl Compare {
    /// Measures and prints.
    pub(crate) fn run(self) -> Result {
        let stop = Stoppable::begin();
        let (a, b) = (Gguf::open(local(&self.a)?), Gguf::open(local(&self.b)?));
        let (a, b) = (a.map_err(cchaha::Error::from)?, b.map_err(cchaha::Error::from)?);
        let tensors = tensor_errors(&a, &b, self.threads.unwrap_or_else(cores), &stop)?;
        let sizes = [a.file_len(), b.file_len()];
        let divergence = match &self.text {
            None => None,
            Some(text) => {
                let (a, b) = (Model::from_gguf(a)?, Model::from_gguf(b)?);
                let windows = Windows::read(&a, text, self.ctx, self.windows)?;
                let threads = self.threads;
                Some(divergence(a.plan(), b.plan(), &windows, threads, &stop)?)
            }
        };
        if let Some(path) = &self.svg {
            let title = format!("{} against {}", self.b.display(), self.a.display());
            let picture = picture::errors(&title, &tensors, divergence.as_ref());
            std::fs::write(path, picture)
                .map_err(|error| Failure::other(format!("cannot write {}: {error}", path.display())))?;
        }
        let mut out = Out::new();
        if self.json {
            let tensors = tensors.iter().map(|t| {
                json!({ "name": t.name, "a": t.from, "b": t.to, "rmse": t.rmse, "relative_rmse": t.relative,
                        "max_error": t.largest })
            });
            out.json(&json!({
                "a": { "file": self.a.display().to_string(), "bytes": sizes[0] },
                "b": { "file": self.b.display().to_string(), "bytes": sizes[1] },
                "tensors": tensors.collect::<Vec<_>>(),
                "text": divergence.as_ref().map(Divergence::json),
            }))?;
        } else {
            print(&tensors, sizes, divergence.as_ref(), &mut out)?;
        }
        out.flush()
    }
}

fn print(tensors: &[TensorError], sizes: [u64; 2], divergence: Option<&Divergence>, out: &mut Out) -> Result {
    let mut table = Table::new(&[
        ("tensor", Align::Left),
        ("A", Align::Left),
        ("B", Align::Left),
        ("RMSE", Align::Right),
        ("rel. RMSE", Align::Right),
        ("max error", Align::Right),
    ]);
    for t in tensors {
        table.row([
            t.name.clone(),
            t.from.clone(),
            t.to.clone(),
            format!("{:.3e}", t.rmse),
            format!("{:.5}", t.relative),
            format!("{:.3e}", t.largest),
        ]);
    }
    table.print(out)?;
    out.line("")?;
    out.line(format_args!("size             {} and {}", bytes(sizes[0]), bytes(sizes[1])))?;
    let Some(divergence) = divergence else { return Ok(()) };
    let (mean, error) = divergence.mean();
    out.line(format_args!("tokens           {}", divergence.kl.len()))?;
    out.line(format_args!("KL divergence    {mean:.6} +- {error:.6} nats"))?;
    out.line(format_args!(
        "                 median {:.6}, 99% {:.6}, largest {:.6}",
        divergence.quantile(0.5),
        divergence.quantile(0.99),
        divergence.quantile(1.0)
    ))?;
    out.line(format_args!("top-1 agreement  {:.3}%", 100.0 * divergence.agreement()))?;
    out.line(format_args!(
        "perplexity       {:.4} and {:.4}",
        divergence.perplexity(0),
        divergence.perplexity(1)
    ))
}

/// The errors of all tensors that both files have.
fn tensor_errors(a: &Gguf, b: &Gguf, threads: usize, stop: &Stoppable) -> Result<Vec<TensorError>> {
    for tensor in b.tensors() {
        if a.tensor(&tensor.name).is_none_or(|twin| {
            twin.dims.rows() != tensor.dims.rows() || twin.dims.cols() != tensor.dims.cols()
        }) {
            return Err(Failure::usage(format!(
                "{} of {} is missing in {} or has other dimensions there: these are different models",
                tensor.name,
                b.name(),
                a.name()
            )));
        }
    }
    let pairs: Vec<_> = b.tensors().iter().filter_map(|b| Some((a.tensor(&b.name)?, b))).collect();
    let total = pairs.iter().map(|pair| pair.1.data.len()).sum();
    let mut bar = progress_in(Unit::Bytes, "comparing");
    ordered(
        threads,
        pairs.len(),
        |i| tensor_error(pairs[i].0, pairs[i].1),
        |next| {
            let mut done = 0;
            pairs
                .iter()
                .map(|pair| {
                    let error = next();
                    done += pair.1.data.len();
                    bar.at(done, total);
                    if stop.requested() { Err(Failure::interrupted()) } else { Ok(error) }
                })
                .collect()
        },
    )
}

fn tensor_error(a: &TensorInfo, b: &TensorInfo) -> TensorError {
    let (rows, cols) = (a.dims.rows(), a.dims.cols());
    let row_bytes = |tensor: &TensorInfo| tensor.data.len() / rows;
    let (mut x, mut y) = (vec![0.0; cols], vec![0.0; cols]);
    let (mut error, mut power, mut largest) = (0.0, 0.0, 0.0f64);
    let rows = a.data.as_slice().chunks_exact(row_bytes(a)).zip(b.data.as_slice().chunks_exact(row_bytes(b)));
    for (row_a, row_b) in rows {
        dequantize(a.format, row_a, &mut x);
        dequantize(b.format, row_b, &mut y);
        for (&x, &y) in x.iter().zip(&y) {
            let difference = f64::from(x) - f64::from(y);
            error += difference * difference;
            power += f64::from(x) * f64::from(x);
            largest = largest.max(difference.abs());
        }
    }
    let n = a.dims.n_values() as f64;
    TensorError {
        name: a.name.clone(),
        from: a.format.to_string(),
        to: b.format.to_string(),
        rmse: (error / n).sqrt(),
        relative: if error == 0.0 { 0.0 } else { (error / power).sqrt() },
        largest,
    }
}

/// Runs both models side by side.
pub(crate) fn divergence(
    a: &Arc<Plan>,
    b: &Arc<Plan>,
    windows: &Windows,
    threads: Option<usize>,
    stop: &Stoppable,
) -> Result<Divergence> {
    if a.vocab != b.vocab {
        return Err(Failure::usage(format!(
            "the models have {} and {} tokens, so they cannot be compared",
            a.vocab, b.vocab
        )));
    }
    let backend = backend(threads)?;
    let mut first = Evaluation::new(a, &backend, windows.len)?;
    let mut second = Evaluation::new(b, &backend, windows.len)?;
    let mut result = Divergence::default();
    let mut bar = progress("running");
    let total = windows.tokens.len() * windows.len;
    let mut rows = vec![0.0; ROWS * a.vocab];
    for (number, tokens) in windows.tokens.iter().enumerate() {
        let (context, measured) = tokens.split_at(windows.half());
        for evaluation in [&mut first, &mut second] {
            evaluation.reset();
            evaluation.skip(context)?;
        }
        // The last token has nothing after it to be measured on.
        let measured_len = measured.len() - 1;
        for (part, chunk) in measured[..measured_len].chunks(ROWS).enumerate() {
            let next = &measured[part * ROWS + 1..];
            first.logits(chunk, &mut |t, logits| {
                rows[t * a.vocab..][..a.vocab].copy_from_slice(logits);
                Ok(())
            })?;
            second.logits(chunk, &mut |t, logits| {
                let base = &rows[t * a.vocab..][..a.vocab];
                let norms = [log_sum_exp(base)?, log_sum_exp(logits)?];
                result.kl.push(kl_divergence(base, logits, norms));
                result.agreed += usize::from(top(base) == top(logits));
                for ((nll, norm), logits) in result.nll.iter_mut().zip(norms).zip([base, logits]) {
                    *nll += norm - f64::from(logits[next[t] as usize]);
                }
                Ok(())
            })?;
            if stop.requested() {
                return Err(Failure::interrupted());
            }
            bar.at(number * windows.len + windows.half() + (part + 1) * ROWS, total);
        }
    }
    if result.kl.iter().any(|kl| !kl.is_finite()) {
        return Err(Failure::model("a model gave logits that are not numbers"));
    }
    result.kl.sort_unstable_by(f64::total_cmp);
    Ok(result)
}
