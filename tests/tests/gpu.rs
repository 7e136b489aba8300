//! The GPU back end on whole models: the same tokens as the CPU, what a step costs in submits, passes, dispatches and
//! bytes, and what happens when a kernel is wrong. Its kernels one by one are subjects of the conformance tests.
//!
//! Without an adapter these tests say so and pass, unless `CCHAHA_REQUIRE_GPU` is set; a software adapter will do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cchaha::{KvTable, Model, blocks};
use cchaha_kernels::{Cpu, CpuOptions};
use cchaha_plan::{
    Backend, Batch, ErrorKind, Footprint, Format, Limits, Op, PAGE_CELLS, Plan, Result, Runner,
};
use cchaha_shaders::{Gpu, GpuOptions};

fn options() -> GpuOptions<'static> {
    GpuOptions {
        decode: blocks,
        exact: false,
        adapter: None,
        kernel: None,
        checked: false,
        progress: None,
        reference: None,
    }
}

fn gpu(options: &GpuOptions<'_>) -> Option<Gpu> {
    match Gpu::new(options) {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            let required = std::env::var_os("CCHAHA_REQUIRE_GPU").is_some_and(|value| !value.is_empty());
            assert!(!required && error.kind == ErrorKind::Device, "{error}");
            eprintln!("not tested: {error}");
            None
        }
    }
}

fn cpu(exact: bool) -> Cpu {
    Cpu::new(CpuOptions { threads: Some(2), exact, ..CpuOptions::default() }).unwrap()
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn stories() -> Model {
    Model::open(&golden().join("stories260K-f32.gguf")).unwrap()
}

/// One sequence on one runner.
struct Line {
    runner: Box<dyn Runner>,
    kv: KvTable,
    sequence: cchaha::SequenceId,
    axes: usize,
}

impl Line {
    fn new(backend: &dyn Backend, plan: &Arc<Plan>, limits: Limits) -> Line {
        let runner = backend.prepare(plan.clone(), limits).unwrap_or_else(|error| panic!("{error}"));
        let mut kv = KvTable::new(limits.cells);
        let sequence = kv.add();
        Line { runner, kv, sequence, axes: plan.axes }
    }

    /// Evaluates tokens; logits after the last.
    fn feed(&mut self, tokens: &[u32]) -> &[f32] {
        let (n, first) = (tokens.len(), self.kv.len(self.sequence));
        self.kv.append(self.sequence, n).unwrap();
        let pages = self.kv.pages(self.sequence);
        let place = |p: usize| pages[p / PAGE_CELLS] * PAGE_CELLS as u32 + (p % PAGE_CELLS) as u32;
        let batch = Batch {
            tokens,
            positions: &(first..first + n).flat_map(|p| vec![p as i32; self.axes]).collect::<Vec<_>>(),
            sequence: &vec![0; n],
            cell: &(first..first + n).map(place).collect::<Vec<_>>(),
            logits: &[n as u32 - 1],
            sequences: &[pages],
            cells: self.kv.cells(),
        };
        self.runner.run(&batch).unwrap_or_else(|error| panic!("{error}"))
    }
}

fn best(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map(|(i, _)| i as u32).unwrap()
}

/// Feeds the same tokens, those the reference finds likeliest, to both; logits may differ by `tolerance` of their range. Where the
/// reference's two best are closer than twice that, either may win.
fn follow(name: &str, reference: &mut Line, other: &mut Line, prompt: &[u32], steps: usize, tolerance: f32) {
    let mut tokens = prompt.to_vec();
    for step in 0..steps {
        let want = reference.feed(&tokens).to_vec();
        let got = other.feed(&tokens);
        let low = want.iter().copied().fold(f32::INFINITY, f32::min);
        let high = want.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let allowed = tolerance * (high - low);
        let off = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off <= allowed, "{name}, step {step}: logits are off by {off} of {allowed}");
        let next = best(&want);
        assert!(
            best(got) == next || high - want[best(got) as usize] <= 2.0 * allowed,
            "{name}, step {step}: token {} instead of {next}",
            best(got)
        );
        tokens = vec![next];
    }
}

fn prompt(n: usize, vocab: usize) -> Vec<u32> {
    (0..n).map(|i| (i * i * 7 + 3 * i + 1) as u32 % vocab as u32).collect()
}

#[test]
fn every_architecture_gives_the_cpus_tokens() {
    let Some(gpu) = gpu(&options()) else { return };
    let mut models: Vec<PathBuf> = std::fs::read_dir(golden())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "gguf"))
        .collect();
    models.sort();
    assert!(models.len() >= 10, "golden models are missing");
    for path in models {
        let model = Model::open(&path).unwrap();
        let plan = model.plan();
        let limits = Limits { cells: 64, batch: 16, logits: 1 };
        // Both round keys and values to 16 bits; activations only differ by f32 rounding.
        for exact in [false, true] {
            let device = gpu.with_exact(exact);
            let mut want = Line::new(&cpu(true), plan, limits);
            let mut got = Line::new(&device, plan, limits);
            let name = format!("{} (exact: {exact})", path.file_name().unwrap().to_string_lossy());
            let tolerance = if exact { 1e-4 } else { 5e-3 };
            follow(&name, &mut want, &mut got, &prompt(13, plan.vocab), 12, tolerance);
        }
    }
}

#[test]
fn long_contexts_split_attention_and_merge_it() {
    let Some(gpu) = gpu(&options()) else { return };
    let model = stories();
    let limits = Limits { cells: 512, batch: 128, logits: 1 };
    let device = gpu.with_exact(true);
    let mut want = Line::new(&cpu(true), model.plan(), limits);
    let mut got = Line::new(&device, model.plan(), limits);
    for part in prompt(384, model.plan().vocab).chunks(128) {
        want.feed(part);
        got.feed(part);
    }
    let before = device.counts();
    follow("stories260K", &mut want, &mut got, &[1], 6, 1e-4);
    let layers = model.plan().kv.len() as u64;
    let per_step = (device.counts().dispatches - before.dispatches) / 6;
    let mut short = Line::new(&device, model.plan(), limits);
    let before = device.counts();
    short.feed(&[1]);
    assert_eq!(
        per_step - (device.counts().dispatches - before.dispatches),
        layers,
        "one merge for every layer"
    );
}

#[test]
fn a_decode_step_is_one_submit_one_pass_and_few_dispatches() {
    let Some(gpu) = gpu(&options()) else { return };
    for name in ["stories260K-f32.gguf", "qwen2.gguf", "llama.gguf"] {
        let model = Model::open(&golden().join(name)).unwrap();
        let limits = Limits { cells: 160, batch: 8, logits: 1 };
        let mut line = Line::new(&gpu, model.plan(), limits);
        line.feed(&[1, 2, 3]);
        for step in 0..140u32 {
            let before = gpu.counts();
            line.feed(&[step % 7]);
            let after = gpu.counts();
            assert_eq!(after.submits - before.submits, 1);
            assert_eq!(after.passes - before.passes, 1);
            assert_eq!(after.bind_groups, before.bind_groups);
            let written = after.written_bytes - before.written_bytes;
            assert!(written <= 64, "{name}: {written} bytes written for one token");
            // Embed, TakeRows twice, the last norm and the logits stand outside the layers.
            let layers = model.plan().kv.len() as u64;
            let outside = model
                .plan()
                .steps
                .iter()
                .filter(|s| s.layer.is_none() || matches!(s.op, Op::TakeRows { .. }))
                .count();
            let dispatches = after.dispatches - before.dispatches - outside as u64;
            assert!(dispatches <= 9 * layers, "{name}: {dispatches} dispatches for {layers} layers");
        }
    }
}

#[test]
fn encoding_a_dispatch_costs_little() {
    let gpu = Gpu::noop(&options()).unwrap();
    let model = stories();
    let mut line = Line::new(&gpu, model.plan(), Limits { cells: 512, batch: 8, logits: 1 });
    let mut cheapest = Duration::MAX;
    for step in 0..400u32 {
        let before = gpu.counts();
        let started = Instant::now();
        line.feed(&[step % 7]);
        let dispatches = (gpu.counts().dispatches - before.dispatches) as u32;
        cheapest = cheapest.min(started.elapsed() / dispatches);
    }
    // The whole step is counted, submit and wait included.
    eprintln!("a dispatch costs {:.2} us of CPU time", cheapest.as_secs_f64() * 1e6);
    assert!(cheapest <= Duration::from_nanos(2500), "{cheapest:?} for a dispatch");
}

#[test]
fn the_probe_reads_at_some_speed() {
    let Some(gpu) = gpu(&options()) else { return };
    let rate = gpu.read_bytes_per_s().unwrap_or_else(|error| panic!("{error}"));
    assert!((1e7..1e14).contains(&rate), "{rate} bytes per second");
}

/// A reference that is wrong the first time it is asked.
struct Liar {
    cpu: Cpu,
    lied: AtomicBool,
}

struct LiarRunner {
    runner: Box<dyn Runner>,
    lies: bool,
    logits: Vec<f32>,
}

impl Backend for Liar {
    fn name(&self) -> String {
        "liar".into()
    }

    fn footprint(&self, plan: &Plan, limits: &Limits) -> Footprint {
        self.cpu.footprint(plan, limits)
    }

    fn prepare(&self, plan: Arc<Plan>, limits: Limits) -> Result<Box<dyn Runner>> {
        let runner = self.cpu.prepare(plan, limits)?;
        let lies = !self.lied.swap(true, Ordering::Relaxed);
        Ok(Box::new(LiarRunner { runner, lies, logits: Vec::new() }))
    }
}

impl Runner for LiarRunner {
    fn run(&mut self, batch: &Batch<'_>) -> Result<&[f32]> {
        let factor = if self.lies { 1.01 } else { 1.0 };
        self.logits = self.runner.run(batch)?.iter().map(|x| x * factor).collect();
        Ok(&self.logits)
    }
}

#[test]
fn a_kernel_that_disagrees_is_set_aside() {
    let model = stories();
    let limits = Limits { cells: 64, batch: 16, logits: 1 };
    let honest = GpuOptions { reference: Some(Arc::new(cpu(true))), ..options() };
    let Some(gpu) = gpu(&honest) else { return };
    Line::new(&gpu, model.plan(), limits);
    assert_eq!(gpu.quarantined(), [], "a correct device keeps its kernels");

    let liar = Liar { cpu: cpu(true), lied: AtomicBool::new(false) };
    let gpu = Gpu::new(&GpuOptions { reference: Some(Arc::new(liar)), ..options() }).unwrap();
    // Against 1.01 of the truth every row is wrong: products on one row have none left.
    let refused = gpu.prepare(model.plan().clone(), limits).err().expect("no row is left");
    assert_eq!(refused.kind, ErrorKind::Device);
    let mut rows: Vec<&str> = gpu.quarantined().iter().map(|(name, _)| *name).collect();
    rows.retain(|name| !name.ends_with("-subgroup"));
    assert_eq!(rows, ["wgsl-f32-gemv1", "wgsl-f32-gemv4", "wgsl-f32-gemm"]);
    assert!(gpu.quarantined().iter().all(|(_, format)| *format == Format::F32));
}
