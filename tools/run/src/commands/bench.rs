//! `bench`: prompt and generation rates, in `llama-bench`'s terms and formats.

mod plot;
mod profile;
mod roofline;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cchaha::kernels::{Cpu, CpuOptions, Roofs};
use cchaha::{Model, POLICIES, Session, SessionOptions};
use clap::{Args, ValueEnum, ValueHint};
use serde::Serialize;
use serde_json::Value;

use crate::args::{BackendArgs, ModelArgs, cannot_write, check_writable, positive, whole};
use crate::exit::{Failure, Result};
use crate::interrupt::Stoppable;
use crate::output::{Out, bytes, count, plural};

use self::plot::Chart;
use self::profile::Profile;
use self::roofline::{Fields, Point};

const EXAMPLES: &str = "\
Examples:
  cchaha-run bench -m model.gguf
  cchaha-run bench -m model.gguf -p 512,2048 -n 128 -d 0,4096 -t 1,2 -r 5
  cchaha-run bench -m model.gguf -o json > result.json
  cchaha-run bench -m model.gguf --plot roofline.svg

Rows are named as llama-bench names them: pp512 reads a prompt of 512 tokens, tg64 writes 64 tokens one by one,
`@ d4096` does so behind 4096 other tokens, `, 512 pages` with a budget of 512 cells. One run to warm up is not counted. 0 leaves a test out.
A graphics device writes as it does for greedy sampling: it chooses each token itself and begins the next at once.

`of roof` is the share of what the processor can do at best, as measured before and after the test on as many threads: of the bytes
it reads (weights and KV cache) or of the 8-bit operations it does in a second (matrix products and attention, two for a
multiply-add), whichever bounds the test. A model that fits into caches can go past the bytes memory gives.";

/// Measure prompt and generation speed
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Bench {
    #[command(flatten)]
    model: ModelArgs,

    /// Lengths of prompts to read, comma-separated
    #[arg(short = 'p', long, value_name = "N", value_parser = whole::<usize>, value_delimiter = ',', default_value = "512")]
    n_prompt: Vec<usize>,

    /// Numbers of tokens to write, comma-separated
    #[arg(short, long, value_name = "N", value_parser = whole::<usize>, value_delimiter = ',', default_value = "64")]
    n_gen: Vec<usize>,

    /// Numbers of tokens that come before, comma-separated
    #[arg(short = 'd', long, value_name = "N", value_parser = whole::<usize>, value_delimiter = ',', default_value = "0")]
    n_depth: Vec<usize>,

    /// Times to repeat each test
    #[arg(short, long, value_name = "N", value_parser = positive, default_value_t = 3)]
    repetitions: usize,

    /// Numbers of worker threads, comma-separated [default: one per physical core]
    #[arg(short, long, value_name = "N", value_parser = positive, value_delimiter = ',')]
    threads: Vec<usize>,

    /// How to print the results
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,

    /// Time every kernel on the graphics device and print where the time goes; with a FILE, also draw that there as SVG
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, num_args = 0..=1, default_missing_value = "-")]
    profile: Option<PathBuf>,

    /// Draw the roofline there as SVG: what the tests, and the matrix kernels alone, reach of what the processor can do
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    plot: Option<PathBuf>,

    #[command(flatten)]
    backend: BackendArgs,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A Markdown table
    #[default]
    Md,
    /// Comma-separated values
    Csv,
    /// A JSON array of objects
    Json,
}

/// One test. Field names and their order are llama-bench's; those that have no meaning here are left out. The code window and the
/// rotary positions follow, and what it reaches of the processor's roofs, where that is what runs it.
#[derive(Debug, Serialize)]
struct Row {
    build_commit: &'static str,
    build_number: u32,
    cpu_info: String,
    gpu_info: String,
    backends: String,
    model_filename: String,
    model_type: String,
    model_size: u64,
    model_n_params: u64,
    n_batch: usize,
    n_ubatch: usize,
    n_threads: usize,
    type_k: &'static str,
    type_v: &'static str,
    n_gpu_layers: u32,
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
    test_time: String,
    avg_ns: u64,
    stddev_ns: u64,
    avg_ts: f64,
    stddev_ts: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples_ns: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples_ts: Vec<f64>,
    kv_budget: Option<usize>,
    kv_policy: &'static str,
    /// The model's own where not given.
    rope: Option<String>,
    #[serde(flatten)]
    roofline: Option<Fields>,
}

impl Row {
    /// `pp512 @ d4096`, with a code window or other rotary positions `pp512 @ d4096, 512 pages, rope yarn`.
    fn name(&self) -> String {
        let mut name = match (self.n_prompt, self.n_gen) {
            (n, 0) => format!("pp{n}"),
            (0, n) => format!("tg{n}"),
            (p, n) => format!("pp{p}+tg{n}"),
        };
        if self.n_depth > 0 {
            name += &format!(" @ d{}", self.n_depth);
        }
        if let Some(budget) = self.kv_budget {
            name += &format!(", {budget} {}", self.kv_policy);
        }
        if let Some(rope) = &self.rope {
            name += &format!(", rope {rope}");
        }
        name
    }
}

/// Prints rows as they come.
struct Printer {
    format: Format,
    out: Out,
    rows: usize,
}

impl Printer {
    const COLUMNS: [(&'static str, usize, bool); 8] = [
        ("model", 30, false),
        ("size", 10, true),
        ("params", 10, true),
        ("backend", 10, false),
        ("threads", 7, true),
        ("test", 15, true),
        ("t/s", 20, true),
        ("of roof", 7, true),
    ];

    fn markdown(&mut self, cells: [String; 8]) -> Result {
        let cells = cells.iter().zip(Self::COLUMNS).map(|(cell, (_, width, right))| {
            if right { format!(" {cell:>width$} |") } else { format!(" {cell:<width$} |") }
        });
        self.out.line(format_args!("|{}", cells.collect::<String>()))
    }

    fn row(&mut self, mut row: Row) -> Result {
        let first = self.rows == 0;
        self.rows += 1;
        match self.format {
            Format::Md => {
                if first {
                    self.markdown(Self::COLUMNS.map(|(name, ..)| name.to_owned()))?;
                    let rules = Self::COLUMNS.map(|(_, width, right)| {
                        if right {
                            format!(" {}: |", "-".repeat(width - 1))
                        } else {
                            format!(" {} |", "-".repeat(width))
                        }
                    });
                    self.out.line(format_args!("|{}", rules.concat()))?;
                }
                self.markdown([
                    row.model_type.clone(),
                    bytes(row.model_size),
                    count(row.model_n_params as f64),
                    row.backends.clone(),
                    row.n_threads.to_string(),
                    row.name(),
                    format!("{:.2} ± {:.2}", row.avg_ts, row.stddev_ts),
                    row.roofline.map_or("-".to_owned(), |at| format!("{:.0} %", 100.0 * at.roof_fraction)),
                ])?;
            }
            Format::Csv => {
                row.samples_ns.clear();
                row.samples_ts.clear();
                let fields = serde_json::to_value(&row).map_err(Failure::other)?;
                let fields = fields.as_object().into_iter().flatten();
                let (names, values): (Vec<_>, Vec<_>) = fields
                    .map(|(name, value)| {
                        let text = match value {
                            Value::Null => String::new(),
                            Value::String(text) => text.clone(),
                            other => other.to_string(),
                        };
                        (name.clone(), format!("\"{}\"", text.replace('"', "\"\"")))
                    })
                    .unzip();
                if first {
                    self.out.line(names.join(","))?;
                }
                self.out.line(values.join(","))?;
            }
            Format::Json => {
                self.out.text(if first { "[\n" } else { ",\n" })?;
                let text = serde_json::to_string_pretty(&row).map_err(Failure::other)?;
                self.out.text(&format!("  {}", text.replace('\n', "\n  ")))?;
            }
        }
        self.out.flush()
    }

    fn end(mut self) -> Result {
        if self.format == Format::Json {
            self.out.line("\n]")?;
        }
        self.out.flush()
    }
}

/// One thing to time: behind `depth` tokens, read `prompt` ones at once or write `gen` ones one by one.
#[derive(Clone, Copy)]
struct Test {
    depth: usize,
    prompt: usize,
    gen_: usize,
}

impl Test {
    fn tokens(&self) -> usize {
        self.prompt + self.gen_
    }

    /// Time of the part that counts.
    fn run(&self, session: &mut Session, tokens: &[u32], stop: &Stoppable) -> Result<Duration> {
        self.go_before(session, tokens, stop)?;
        let ahead = session.goes_ahead();
        let start = Instant::now();
        self.go(session, tokens, ahead, stop)?;
        Ok(start.elapsed())
    }

    /// What comes before the part that counts; what the session has of it stays.
    fn go_before(&self, session: &mut Session, tokens: &[u32], stop: &Stoppable) -> Result {
        match &tokens[..self.depth] {
            [] => session.truncate(0),
            before => drop(session.set_prompt(before, &mut |_| stop.flow())?),
        }
        Ok(())
    }

    /// The part that counts. Where it goes `ahead`, the device writes what it likes after the first token.
    fn go(&self, session: &mut Session, tokens: &[u32], ahead: bool, stop: &Stoppable) -> Result {
        let mut go_on = |_| stop.flow();
        let rest = &tokens[self.depth..];
        session.feed(&rest[..self.prompt], &mut go_on)?;
        let mut next = rest.get(self.prompt).copied().unwrap_or_default();
        for token in &rest[self.prompt..self.tokens()] {
            if !ahead {
                session.feed(&[*token], &mut go_on)?;
                continue;
            }
            next = session.step(next)?;
            if stop.flow().is_break() {
                return Err(Failure::interrupted());
            }
        }
        Ok(())
    }
}

impl Bench {
    pub(crate) fn run(self) -> Result {
        self.backend.check()?;
        let mut tests = Vec::new();
        for &depth in &self.n_depth {
            tests.extend(self.n_prompt.iter().map(|&prompt| Test { depth, prompt, gen_: 0 }));
            tests.extend(self.n_gen.iter().map(|&gen_| Test { depth, prompt: 0, gen_ }));
        }
        tests.retain(|test| test.tokens() > 0);
        let Some(context) = tests.iter().map(|test| test.depth + test.tokens()).max() else {
            return Err(Failure::usage("nothing to measure: give -p or -n a number above 0"));
        };
        self.plot.as_deref().map_or(Ok(()), check_writable)?;
        self.profile_picture().map_or(Ok(()), check_writable)?;
        let model = Arc::new(self.model.open_or_embedded()?);
        let tokens = tokens(&model, context);
        self.backend.say_idle_policy(&self.backend.options());
        let stop = Stoppable::begin();
        let (mut profiles, mut charts) = (Vec::new(), Vec::new());
        let mut printer = Printer { format: self.output, out: Out::new(), rows: 0 };
        let threads = if self.threads.is_empty() { vec![default_threads()?] } else { self.threads.clone() };
        for threads in threads {
            let options = SessionOptions {
                threads: Some(threads),
                ctx: Some(context),
                response: None,
                ..self.backend.options()
            };
            let mut session = Session::new(&model, &options)?;
            let cpu = session.backend_name().starts_with("cpu").then(|| cchaha::cpu(&options)).transpose()?;
            if self.plot.is_some() && cpu.is_none() {
                return Err(Failure::usage("--plot draws the roofline of the processor; add --device cpu"));
            }
            let (mut roofs, mut points) = (cpu.as_ref().map(Cpu::roofs), Vec::new());
            for test in &tests {
                // The first run pages the weights in and wakes the threads.
                let mut times = Vec::new();
                for _ in 0..=self.repetitions {
                    times.push(test.run(&mut session, &tokens, &stop)?);
                }
                let mut row = self.row(&session, test, threads, &times[1..]);
                if let (Some(cpu), Some(before)) = (&cpu, roofs) {
                    let after = cpu.roofs();
                    roofs = Some(before.max(after));
                    let work = roofline::work(test, model.plan(), &options);
                    let point = Point { name: row.name(), work, seconds: row.avg_ns as f64 / 1e9 };
                    row.roofline = Some(point.under(before.max(after)));
                    points.push(point);
                }
                if self.profile.is_some() {
                    let mut profile = profile(&mut session, test, row.name(), &tokens, &stop)?;
                    profile.tokens_per_s = (test.prompt == 0).then_some(row.avg_ts);
                    profiles.push(profile);
                }
                printer.row(row)?;
            }
            if let (Some(_), Some(cpu), Some(roofs)) = (&self.plot, cpu, roofs) {
                charts.push(Self::chart(&model, &cpu, roofs, points)?);
            }
        }
        printer.end()?;
        let mut out = Out::new();
        profiles.iter().try_for_each(|profile| profile.print(&mut out))?;
        if let Some(path) = self.profile_picture() {
            std::fs::write(path, profile::svg(&profiles)).map_err(|error| cannot_write(path, &error))?;
        }
        if let Some(path) = &self.plot {
            std::fs::write(path, plot::svg(&charts)).map_err(|error| cannot_write(path, &error))?;
        }
        out.flush()
    }

    /// Where to draw what `--profile` finds.
    fn profile_picture(&self) -> Option<&Path> {
        self.profile.as_deref().filter(|path| *path != Path::new("-"))
    }

    /// The roofline of one number of threads.
    fn chart(model: &Model, cpu: &Cpu, roofs: Roofs, tests: Vec<Point>) -> Result<Chart> {
        let threads = plural(cpu.threads(), "thread");
        let title = [model.name().to_owned(), cpu_info(), threads];
        let title = title.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
        Ok(Chart { title, roofs, tests, kernels: roofline::kernels(model.plan(), cpu)? })
    }

    fn row(&self, session: &Session, test: &Test, threads: usize, times: &[Duration]) -> Row {
        let model = session.model();
        let window = self.backend.options().window;
        let nanoseconds: Vec<f64> = times.iter().map(|time| time.as_nanos() as f64).collect();
        let rates: Vec<f64> = nanoseconds.iter().map(|ns| test.tokens() as f64 * 1e9 / ns).collect();
        let (avg_ns, stddev_ns) = mean_and_deviation(&nanoseconds);
        let (avg_ts, stddev_ts) = mean_and_deviation(&rates);
        let tensors = model.gguf().tensors();
        let n_params: u64 = tensors.iter().map(|tensor| tensor.dims.n_values() as u64).sum();
        Row {
            build_commit: option_env!("CCHAHA_BUILD_COMMIT").unwrap_or("unknown"),
            build_number: 0,
            cpu_info: cpu_info(),
            gpu_info: session.gpu().map_or(String::new(), |gpu| gpu.adapter().name.clone()),
            backends: session.backend_name().split(' ').next().unwrap_or_default().to_uppercase(),
            model_filename: model.gguf().name().to_owned(),
            model_type: model_type(model, n_params),
            model_size: tensors.iter().map(|tensor| tensor.data.len() as u64).sum(),
            model_n_params: n_params,
            n_batch: self.backend.batch_size,
            n_ubatch: self.backend.batch_size,
            n_threads: threads,
            type_k: "f16",
            type_v: "f16",
            n_gpu_layers: match (session.gpu(), self.backend.gpu_layers) {
                (None, _) => 0,
                (Some(_), layers) => layers.unwrap_or(usize::MAX).min(model.plan().layers()) as u32,
            },
            n_prompt: test.prompt,
            n_gen: test.gen_,
            n_depth: test.depth,
            test_time: now(),
            avg_ns: avg_ns as u64,
            stddev_ns: stddev_ns as u64,
            avg_ts,
            stddev_ts,
            samples_ns: nanoseconds.iter().map(|&ns| ns as u64).collect(),
            samples_ts: rates,
            kv_budget: window.budget,
            // Without a budget there is nothing to choose.
            kv_policy: window.budget.map_or(POLICIES[0].name, |_| window.policy.name),
            rope: self.backend.rope().map(str::to_owned),
            roofline: None,
        }
    }
}

/// The test once more, with every kernel timed.
fn profile(
    session: &mut Session,
    test: &Test,
    name: String,
    tokens: &[u32],
    stop: &Stoppable,
) -> Result<Profile> {
    let Some(gpu) = session.gpu().cloned() else {
        return Err(Failure::usage("--profile times the kernels of a graphics device; add --device gpu"));
    };
    let probe = gpu.read_bytes_per_s().map_err(cchaha::Error::from)?;
    test.go_before(session, tokens, stop)?;
    gpu.set_profile(true).map_err(cchaha::Error::from)?;
    // Only steps whose logits come back are timed kernel by kernel.
    let outcome = test.go(session, tokens, false, stop);
    gpu.set_profile(false).map_err(cchaha::Error::from)?;
    outcome?;
    Ok(Profile::new(name, test.tokens(), gpu.take_times(), probe))
}

/// `n` tokens, the same ones every time: BOS where there is one, then anything.
fn tokens(model: &Model, n: usize) -> Vec<u32> {
    let vocab = model.plan().vocab as u64;
    let mut state = 1u64;
    let mut tokens: Vec<u32> = (0..n)
        .map(|_| {
            // Knuth's MMIX constants; the high bits are the random ones.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % vocab) as u32
        })
        .collect();
    if let (Some(first), Some(bos)) = (tokens.first_mut(), model.tokenizer().bos()) {
        *first = bos;
    }
    tokens
}

/// Architecture, size and the format most of the weights have: `qwen2 494.03 M Q4_K`.
fn model_type(model: &Model, n_params: u64) -> String {
    let mut bytes = HashMap::new();
    for tensor in model.gguf().tensors() {
        *bytes.entry(tensor.format).or_insert(0) += tensor.data.len();
    }
    let most = bytes.into_iter().max_by_key(|&(format, bytes)| (bytes, format));
    let format = most.map_or("", |(format, _)| format.name());
    format!("{} {} {format}", model.plan().architecture, count(n_params as f64))
}

/// As many as the CPU back end takes by itself.
fn default_threads() -> Result<usize> {
    let cpu = Cpu::new(CpuOptions::default()).map_err(cchaha::Error::from)?;
    Ok(cpu.threads())
}

/// Mean and sample standard deviation; 0 for one sample.
fn mean_and_deviation(samples: &[f64]) -> (f64, f64) {
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    let squares: f64 = samples.iter().map(|x| (x - mean).powi(2)).sum();
    (mean, if samples.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 })
}

/// What the operating system calls the processor; empty where it does not say.
fn cpu_info() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or(String::new(), |(_, name)| name.trim().to_owned())
}

/// Now in UTC, as `2026-11-22T17:26:31Z`.
fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    utc(seconds)
}

/// Seconds since 1970 as a date: the civil calendar repeats every 400 years of 146097 days; years start in March here,
/// so that the leap day is a year's last.
fn utc(seconds: u64) -> String {
    let (day, second) = (seconds / 86400 + 719_468, seconds % 86400);
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", era * 400 + year + next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_795_368_391), "2026-11-22T17:26:31Z");
        assert_eq!(utc(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn deviation_is_that_of_a_sample() {
        assert_eq!(mean_and_deviation(&[3.0]), (3.0, 0.0));
        assert_eq!(mean_and_deviation(&[2.0, 4.0, 6.0]), (4.0, 2.0));
    }
}
