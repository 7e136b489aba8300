//! The GPU back end on whole models: the same tokens as the CPU, what a step costs in submits, passes, dispatches and
//! bytes, and what happens when a kernel is wrong. Its kernels one by one are subjects of the conformance tests.
//!
//! Without an adapter these tests say so and pass, unless `CCHAHA_REQUIRE_GPU` is set; a software adapter will do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cchaha::sample::SampleParams;
use cchaha::{Device, GenerateRequest, KvTable, Model, Session, SessionOptions, blocks, generate};
use cchaha_kernels::{Cpu, CpuOptions};
use cchaha_plan::{
    Backend, Batch, BufferId, BufferSpec, Bytes, ErrorKind, Footprint, Format, Limits, Op, PAGE_CELLS, Plan,
    Result, Rows, Runner, Shape, Step, Weight, WeightId,
};
use cchaha_shaders::{Gpu, GpuOptions, Needs, Tune, kept_choices, registry};

fn options() -> GpuOptions<'static> {
    GpuOptions::new(blocks)
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
        self.with_batch(tokens, |runner, batch| runner.run(batch).unwrap_or_else(|error| panic!("{error}")))
    }

    /// Begins the greedy step of a token, or of the one the device chose.
    fn begin(&mut self, token: Option<u32>) {
        self.with_batch(&[token.unwrap_or(0)], |runner, batch| {
            let greedy = runner.greedy().expect("the GPU chooses tokens");
            greedy.begin(batch, token.is_none()).unwrap_or_else(|error| panic!("{error}"));
        });
    }

    fn finish(&mut self) -> u32 {
        let greedy = self.runner.greedy().expect("the GPU chooses tokens");
        greedy.finish().unwrap_or_else(|error| panic!("{error}"))
    }

    fn with_batch<'a, T>(
        &'a mut self,
        tokens: &[u32],
        run: impl FnOnce(&'a mut dyn Runner, &Batch<'_>) -> T,
    ) -> T {
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
            coarse: &[],
            sequences: &[pages],
            cells: self.kv.cells(),
        };
        run(&mut *self.runner, &batch)
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
fn a_decode_step_is_one_submit_one_pass_and_seven_dispatches_a_layer() {
    let Some(gpu) = gpu(&options()) else { return };
    let dot = gpu.with(DOT_ROWS, false).unwrap();
    let open = |name: &str| Model::open(&golden().join(name)).unwrap().plan().clone();
    let [stories, llama, qwen2] = ["stories260K-f32.gguf", "llama.gguf", "qwen2.gguf"].map(open);
    let mixed = as_q8_0(&llama, "attn_v");
    let (wide, narrow) = (with_wide_heads(&as_q8_0(&llama, "")), as_q8_0(&qwen2, ""));
    for (name, gpu, plan, more) in [
        ("stories260K", &gpu, stories, 0),
        ("llama", &gpu, llama, 0),
        ("qwen2", &gpu, qwen2, 0),
        // As files of mixed formats have it, which keep values finer than queries and keys.
        ("llama, mixed", &gpu, mixed.clone(), mixed.kv.len() as u64),
        ("llama, rounded", &dot, wide, 0),
        // Heads of 16 are no whole runs: what they attend to is rounded by a dispatch of its own, but in the last layer, which takes
        // the wanted rows of it.
        ("qwen2, rounded", &dot, narrow.clone(), narrow.kv.len() as u64 - 1),
    ] {
        let limits = Limits { cells: 512, batch: 64, logits: 1 };
        let mut line = Line::new(gpu, &plan, limits);
        line.feed(&[1, 2, 3]);
        let step = |line: &mut Line, fed: bool, split: bool| {
            let before = gpu.counts();
            if fed {
                line.begin(None);
            } else {
                line.feed(&[1]);
            }
            let after = gpu.counts();
            assert_eq!(after.submits - before.submits, 1);
            assert_eq!(after.passes - before.passes, 1);
            assert_eq!(after.bind_groups, before.bind_groups);
            let written = after.written_bytes - before.written_bytes;
            assert!(written <= 64, "{name}: {written} bytes written for one token");
            // Embed, TakeRows twice, the last norm and the logits stand outside the layers; two choose a token.
            let layers = plan.kv.len() as u64;
            let outside =
                plan.steps.iter().filter(|s| s.layer.is_none() || matches!(s.op, Op::TakeRows { .. }));
            let mut want = outside.count() as u64 + 7 * layers + more;
            // In a long context the parts of every layer's attention are merged.
            want += if split { layers } else { 0 } + if fed { 2 } else { 0 };
            assert_eq!(after.dispatches - before.dispatches, want, "{name}, fed: {fed}, split: {split}");
            if fed {
                line.finish();
                assert_eq!(gpu.counts(), after, "to hear of a token costs nothing");
            }
        };
        (0..40).for_each(|_| step(&mut line, false, false));
        // A step does not cost more for not knowing its token.
        line.begin(Some(1));
        (0..40).for_each(|_| step(&mut line, true, false));
        line.finish();
        for part in prompt(160, plan.vocab).chunks(64) {
            line.feed(part);
        }
        (0..5).for_each(|_| step(&mut line, false, true));
        assert_eq!(gpu.counts().faults, 0);
    }
}

/// Rows that multiply rounded activations, for one token.
const DOT_ROWS: &str = "wgsl-dot-gemv1,wgsl-dot-gated1";

/// The plan with half as many heads, of twice the size.
fn with_wide_heads(plan: &Plan) -> Arc<Plan> {
    let mut plan = plan.clone();
    for kv in &mut plan.kv {
        assert!(kv.n_kv_heads.is_multiple_of(2));
        (kv.n_kv_heads, kv.head_dim) = (kv.n_kv_heads / 2, kv.head_dim * 2);
    }
    for step in &mut plan.steps {
        match &mut step.op {
            Op::Rope { head_dim, .. } => *head_dim *= 2,
            Op::Attend { n_heads, .. } => *n_heads /= 2,
            _ => {}
        }
    }
    plan.validate().unwrap();
    Arc::new(plan)
}

#[test]
fn greedy_steps_feed_each_other() {
    let Some(gpu) = gpu(&options()) else { return };
    let model = stories();
    let limits = Limits { cells: 256, batch: 8, logits: 1 };
    let mut waiting = Line::new(&gpu, model.plan(), limits);
    let mut ahead = Line::new(&gpu, model.plan(), limits);
    let mut token = best(waiting.feed(&[1, 403, 407]));
    ahead.feed(&[1, 403, 407]);
    ahead.begin(Some(token));
    for step in 0..100 {
        token = best(waiting.feed(&[token]));
        ahead.begin(None);
        assert_eq!(ahead.finish(), token, "step {step}");
    }
    // A batch that is run gives up the step under way.
    let refused = ahead.with_batch(&[0, 0], |runner, batch| runner.greedy().unwrap().begin(batch, true));
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Usage);
    let greedy = ahead.runner.greedy().unwrap();
    greedy.finish().unwrap();
    assert_eq!(greedy.finish().unwrap_err().kind, ErrorKind::Usage, "nothing is under way");
}

/// Logits of many workgroups, with the greatest value in several places: the first of them counts.
#[test]
fn the_device_chooses_the_lowest_of_equal_tokens() {
    let Some(gpu) = gpu(&options()) else { return };
    for vocab in [3usize, 1025, 70_001] {
        let width = 32;
        let f32s = |values: Vec<f32>| {
            Bytes::from(values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>())
        };
        let weight = |name: &str, values: Vec<f32>| Weight {
            name: name.into(),
            format: Format::F32,
            shape: Shape::matrix(vocab, width),
            bytes: f32s(values),
        };
        // The first column of a row's weights says how good it is; every token is greatest at `vocab / 3 * 2` and after it.
        let good =
            |row: usize| if row >= vocab / 3 * 2 && row.is_multiple_of(2) { 5.0 } else { (row % 5) as f32 };
        let table = (0..vocab * width).map(|i| if i % width == 0 { 1.0 } else { 0.0 }).collect();
        let weights =
            (0..vocab * width).map(|i| if i % width == 0 { good(i / width) } else { 0.5 }).collect();
        let buffer = |width, rows| BufferSpec { name: "b", width, rows };
        let [x, taken, out] = [0, 1, 2].map(BufferId);
        let steps = [
            Op::Embed { table: WeightId(0), scale: 1.0, out: x },
            Op::TakeRows { x, out: taken },
            Op::MatMul { weight: WeightId(1), bias: None, residual: None, x: taken, out },
        ];
        let plan = Arc::new(Plan {
            steps: steps.into_iter().map(|op| Step { op, layer: None }).collect(),
            buffers: vec![
                buffer(width, Rows::Tokens),
                buffer(width, Rows::Logits),
                buffer(vocab, Rows::Logits),
            ],
            weights: vec![weight("table", table), weight("weights", weights)],
            logits: out,
            ..Plan::new("choice", vocab, 32)
        });
        let mut line = Line::new(&gpu, &plan, Limits { cells: 32, batch: 4, logits: 1 });
        line.begin(Some(0));
        line.begin(None);
        let first = (0..vocab).max_by(|&a, &b| good(a).total_cmp(&good(b)).then(b.cmp(&a))).unwrap() as u32;
        assert_eq!([line.finish(), line.finish()], [first; 2], "{vocab} tokens");
    }
}

fn session(model: &Arc<Model>, options: SessionOptions) -> Session {
    let options = SessionOptions { threads: Some(1), exact: true, ctx: Some(128), ..options };
    Session::new(model, &options).unwrap_or_else(|error| panic!("{error}"))
}

/// The text after a prompt, and what `each` did at every token.
fn written(session: &mut Session, mut each: impl FnMut(usize)) -> String {
    let model = session.model().clone();
    let prompt = model.tokenizer().encode_prompt("Once upon a time", cchaha::text::Special::Plain);
    session.set_prompt(&prompt, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    let request =
        GenerateRequest { max_tokens: 40, sample: SampleParams::greedy(), ..GenerateRequest::default() };
    let (mut text, mut n) = (String::new(), 0);
    generate(session, &request, &mut |piece| {
        text.push_str(piece.text);
        each(n);
        n += 1;
        std::ops::ControlFlow::Continue(())
    })
    .unwrap_or_else(|error| panic!("{error}"));
    text
}

#[test]
fn sessions_write_the_same_on_the_gpu_on_parts_of_it_and_where_it_fails() {
    let Some(_) = gpu(&options()) else { return };
    let model = Arc::new(stories());
    let on = |device, gpu_layers| SessionOptions { device, gpu_layers, ..SessionOptions::default() };
    let want = written(&mut session(&model, on(Device::Cpu, None)), |_| {});
    assert!(want.len() > 60, "{want:?}");
    for layers in [None, Some(0), Some(1), Some(99)] {
        let mut session = session(&model, on(Device::Gpu, layers));
        let gpu = session.gpu().unwrap().clone();
        assert_eq!(written(&mut session, |_| {}), want, "{layers:?} layers");
        assert_eq!(gpu.counts().faults, 0, "{layers:?} layers");
        assert_eq!(gpu.counts().steps > 0, layers != Some(0), "{layers:?} layers");
        // The conversation goes on where it is, whatever was begun ahead.
        let again = written(&mut session, |_| {});
        assert_eq!(again, want, "{layers:?} layers, once more");
    }
    for at in [0, 1, 20] {
        let mut session = session(&model, on(Device::Gpu, None));
        let gpu = session.gpu().unwrap().clone();
        let destroy = |n| {
            if n == at {
                gpu.destroy();
            }
        };
        assert_eq!(written(&mut session, destroy), want, "destroyed at token {at}");
    }
}

#[test]
fn every_dispatch_is_timed_and_weights_are_counted_once_a_token() {
    let Some(gpu) = gpu(&options()) else { return };
    if let Err(error) = gpu.set_profile(true) {
        eprintln!("not tested: {error}");
        return;
    }
    let model = stories();
    let mut line = Line::new(&gpu, model.plan(), Limits { cells: 64, batch: 8, logits: 1 });
    let before = gpu.counts();
    for token in 1..4 {
        line.feed(&[token]);
    }
    let times = gpu.take_times();
    let dispatches: u64 = times.iter().map(|time| time.dispatches).sum();
    assert_eq!(dispatches, gpu.counts().dispatches - before.dispatches);
    assert!(times.iter().all(|time| time.seconds >= 0.0) && times.iter().any(|time| time.seconds > 0.0));
    let read: u64 = times.iter().map(|time| time.bytes).sum();
    let multiplied = model.plan().steps.iter().flat_map(|step| match step.op {
        Op::MatMul { weight, .. } => vec![weight],
        Op::GatedMatMul { gate, up, .. } => vec![gate, up],
        _ => vec![],
    });
    let all: u64 = multiplied.map(|id| model.plan().weight(id).bytes.len() as u64).sum();
    // Rows are filled up to whole runs, which makes 172 columns 192.
    assert!((3 * all..=3 * all * 6 / 5).contains(&read), "{read} bytes read, {all} a token");
    assert_eq!(gpu.take_times(), [], "they are given out once");
    gpu.set_profile(false).unwrap();
    line.feed(&[1]);
    assert_eq!(gpu.take_times(), []);
}

#[test]
fn compiled_kernels_are_kept_and_a_damaged_file_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let keeping = GpuOptions { cache: Some(folder.path().join("cchaha")), ..options() };
    let Some(gpu) = gpu(&keeping) else { return };
    if !gpu.adapter().features.contains(&"pipeline cache") {
        eprintln!("not tested: {} keeps no compiled kernels", gpu.adapter().name);
        return;
    }
    let (model, limits) = (stories(), Limits { cells: 64, batch: 8, logits: 1 });
    let logits = |gpu: &Gpu| Line::new(gpu, model.plan(), limits).feed(&[1, 2, 3]).to_vec();
    let want = logits(&gpu);
    let files = || std::fs::read_dir(folder.path().join("cchaha")).unwrap().map(|file| file.unwrap().path());
    let file = files().next().expect("a file was written");
    assert_eq!(files().count(), 1);
    let kept = std::fs::read(&file).unwrap();
    assert!(kept.len() > 8, "{} bytes", kept.len());
    assert_eq!(logits(&Gpu::new(&keeping).unwrap()), want);
    let changed = kept.iter().enumerate().map(|(i, byte)| byte ^ u8::from(i == kept.len() / 2)).collect();
    for damaged in [vec![], kept[..kept.len() / 2].to_vec(), changed] {
        std::fs::write(&file, damaged).unwrap();
        let gpu = Gpu::new(&keeping).unwrap();
        assert_eq!(logits(&gpu), want);
        assert_eq!(gpu.counts().faults, 0);
        assert_eq!(std::fs::read(&file).unwrap().len(), kept.len(), "it is written anew");
    }
}

#[test]
fn rows_are_chosen_by_time_once() {
    let folder = tempfile::tempdir().unwrap();
    let tuning = GpuOptions { cache: Some(folder.path().into()), tune: Tune::Always, ..options() };
    let Some(device) = gpu(&tuning) else { return };
    if !device.adapter().features.contains(&"timestamps") {
        eprintln!("not tested: {} has no timestamps", device.adapter().name);
        return;
    }
    // A model of integers, for which rows that round activations compete too, and of some floats.
    let plan = as_q8_0(stories().plan(), "");
    let limits = Limits { cells: 64, batch: 16, logits: 1 };
    let mut want = Line::new(&cpu(true), &plan, limits);
    let mut got = Line::new(&device, &plan, limits);
    follow("tuned", &mut want, &mut got, &prompt(13, plan.vocab), 8, 5e-3);
    let chosen = device.tuned();
    assert!(chosen.iter().all(|c| c.bytes_per_s > 0.0), "{chosen:?}");
    let choices = chosen.iter().map(|c| (c.op, c.format, c.most_rows)).collect::<Vec<_>>();
    let of = |op, format| [1, 8, usize::MAX].map(|rows| (op, format, rows));
    let (q8, f32s) = (of("MatMul", Format::Q8_0), of("MatMul", Format::F32));
    // Of many rows a gate is no kernel of its own.
    assert_eq!(choices, [&f32s, &q8, &of("GatedMatMul", Format::Q8_0)[..2]].concat());
    for c in &chosen {
        assert_eq!(device.kernel(c.op, Some(c.format), c.most_rows).map(|row| row.name), Some(c.kernel.name));
    }
    assert_eq!(kept_choices(folder.path()).iter().map(|(_, kept)| kept.len()).sum::<usize>(), chosen.len());
    // The next one reads what was kept, and times nothing.
    let again = gpu(&GpuOptions { tune: Tune::Never, ..tuning.clone() }).unwrap();
    let name = |c: &cchaha_shaders::Chosen| (c.op, c.format, c.most_rows, c.kernel.name);
    assert_eq!(
        again.tuned().iter().map(name).collect::<Vec<_>>(),
        chosen.iter().map(name).collect::<Vec<_>>()
    );
}

/// Products of half floats on a whole model, which no row is chosen for by itself: logits stay near those of the CPU.
#[test]
fn half_floats_stay_near_the_cpus_logits() {
    let Some(gpu) = gpu(&options()) else { return };
    let plan = as_q8_0(stories().plan(), "");
    let narrows =
        |gpu: &Gpu| gpu.kernel("MatMul", Some(Format::Q8_0), usize::MAX).is_some_and(|row| row.narrows());
    assert!(!narrows(&gpu));
    for row in registry().iter().filter(|row| row.narrows() && row.lacks(gpu.adapter()).is_none()) {
        let device = gpu.with(row.name, false).unwrap();
        assert!(narrows(&device));
        let limits = Limits { cells: 64, batch: 64, logits: 1 };
        let (mut want, mut got) = (Line::new(&cpu(true), &plan, limits), Line::new(&device, &plan, limits));
        follow(row.name, &mut want, &mut got, &prompt(40, plan.vocab), 4, 5e-3);
    }
}

/// Products of integers on a whole model: the greedy tokens stay those of the CPU.
#[test]
fn rounded_activations_give_the_cpus_tokens() {
    let Some(gpu) = gpu(&options()) else { return };
    let device = gpu.with(DOT_ROWS, false).unwrap();
    for op in ["MatMul", "GatedMatMul"] {
        assert!(device.kernel(op, Some(Format::Q8_0), 1).is_some_and(|row| row.rounds()));
    }
    let golden = |name: &str| as_q8_0(Model::open(&golden().join(name)).unwrap().plan(), "");
    // One whose attention is rounded on the way too, and one with an activation by itself; contexts whose attention is split.
    let llama = with_wide_heads(&golden("llama.gguf"));
    for (name, plan, n) in [
        ("stories260K", as_q8_0(stories().plan(), ""), 13),
        ("llama", llama, 300),
        ("starcoder2", golden("starcoder2.gguf"), 13),
        ("gemma3", golden("gemma3.gguf"), 13),
    ] {
        let limits = Limits { cells: 320, batch: 300, logits: 1 };
        let mut want = Line::new(&cpu(true), &plan, limits);
        let mut got = Line::new(&device, &plan, limits);
        follow(&format!("{name} in Q8_0"), &mut want, &mut got, &prompt(n, plan.vocab), 12, 5e-3);
    }
}

/// The plan with every matrix of whole blocks whose name holds `part` in Q8_0: `d = max |w| / 127`, as f16, and `q = round(w / d)`.
fn as_q8_0(plan: &Plan, part: &str) -> Arc<Plan> {
    let mut plan = plan.clone();
    for weight in &mut plan.weights {
        let whole = weight.shape.rows > 1 && weight.shape.cols.is_multiple_of(32);
        if !whole || !weight.name.contains(part) {
            continue;
        }
        let values: Vec<f32> = weight
            .bytes
            .as_slice()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect();
        let mut bytes = Vec::new();
        for block in values.as_chunks::<32>().0 {
            let largest = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            // A power of two at or above, which an f16 holds.
            let d = (largest / 127.0).max(1e-4).log2().ceil().exp2();
            let exponent = (d.to_bits() >> 23) as u16 - 112;
            bytes.extend((exponent << 10).to_le_bytes());
            bytes.extend(block.map(|value| (value / d).round() as i8 as u8));
        }
        (weight.format, weight.bytes) = (Format::Q8_0, Bytes::from(bytes));
    }
    Arc::new(plan)
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
    let rows: Vec<&str> = gpu.quarantined().iter().map(|(name, _)| *name).collect();
    for row in registry() {
        let fits = row.accepts("MatMul", Some(Format::F32));
        assert!(fits || !rows.contains(&row.name), "{} multiplies nothing here", row.name);
        assert!(!fits || row.needs != Needs::Nothing || rows.contains(&row.name), "{} is left", row.name);
    }
    assert!(gpu.quarantined().iter().all(|(_, format)| *format == Format::F32));
}
