//! A prepared plan on the device: its buffers, its stages, one submit for each batch.

use std::sync::Arc;
use std::sync::mpsc;

use cchaha_plan::{
    Batch, BufferId, Error, ErrorKind, Footprint, Greedy, KvSpec, Limits, Op, PAGE_CELLS, Plan, Result, Rows,
    Runner,
};

use crate::arena::{Arena, Place, row_limit};
use crate::args;
use crate::device::{ANSWER, Device};
use crate::frame::{Frame, Parts};
use crate::gpu::{Counters, Gpu};
use crate::greedy::{self, Ahead};
use crate::launch::Launch;
use crate::lower::{CLASSES, Lower, MAX_SPLITS, Regions, SPLIT_CELLS, Stage, Twins};
use crate::profile::{self, Profile, Stopwatch};
use crate::registry::Binds;
use crate::tune;
use crate::vectors::Vectors;
use crate::weights::Weights;

/// What a plan asks of the device.
#[derive(Debug)]
pub(crate) struct Sizes {
    limits: Limits,
    exact: bool,
    arena: Arena,
    regions: Regions,
    best: Place,
    parts: Parts,
}

impl Sizes {
    pub(crate) fn new(plan: &Plan, limits: &Limits, gpu: &Gpu) -> Sizes {
        let exact = gpu.exact;
        let mut arena = Arena::new(plan, limits);
        let parts = Parts::new(plan, limits);
        let (mut attention, mut kv_heads, mut experts) = (0, 0, [0; 3]);
        let (mut queries, mut folding) = (vec![None; plan.kv.len()], 0);
        for step in &plan.steps {
            match step.op {
                Op::Attend { slot, n_heads, .. } => {
                    attention = attention.max(n_heads * (plan.kv[slot.index()].head_dim + 2));
                }
                Op::QueryStore { q, slot, .. } => {
                    queries[slot.index()] = Some(arena.take(plan.buffer(q).width, PAGE_CELLS));
                    folding = folding.max(plan.kv[slot.index()].n_kv_heads);
                }
                Op::SelectPages { slot, .. } => kv_heads = kv_heads.max(plan.kv[slot.index()].n_kv_heads),
                Op::Experts { top_k, gate, .. } => {
                    let shape = plan.weight(gate).shape;
                    experts = [experts[0].max(top_k), experts[1].max(shape.rows), experts[2].max(shape.cols)];
                }
                _ => {}
            }
        }
        let few = limits.batch.min(CLASSES[1]);
        let mut flags = || arena.take(parts.pages, limits.batch.saturating_mul(kv_heads));
        // Rows of pages are read with a stride of exactly `pages`, which the rounding of the stride covers.
        let bounds = if plan.selections > 0 { flags().base } else { 0 };
        let selections = (0..plan.selections).map(|_| flags().base).collect();
        let cells = limits.cells.next_multiple_of(PAGE_CELLS);
        let fold = [
            arena.take(parts.pages, usize::from(folding > 0)),
            arena.take(cells, folding),
            arena.take(cells, folding),
        ];
        let [top_k, rows, cols] = experts;
        let slots = limits.batch.saturating_mul(top_k);
        let mut expert = |width| if top_k > 0 { arena.take(width, slots) } else { Place::default() };
        let (expert_gate, expert_up, expert_down) = (expert(rows), expert(rows), expert(cols));
        let routed = [arena.take(top_k, limits.batch), arena.take(top_k, limits.batch)];
        let attention = arena.take(attention.saturating_mul(MAX_SPLITS), few).base;
        let twins = Twins::new(plan, limits, &gpu.choice, gpu.tunes(), &mut arena);
        let best = arena.take(greedy::REGION, 1);
        let fed = greedy::chosen(best);
        let regions = Regions {
            fed,
            twins,
            attention,
            bounds,
            selections,
            queries,
            fold,
            routed,
            expert_gate,
            expert_up,
            expert_down,
        };
        Sizes { limits: *limits, exact, arena, regions, best, parts }
    }

    fn cells(&self) -> usize {
        self.limits.cells.next_multiple_of(PAGE_CELLS)
    }

    /// Bytes of the keys, or of the values, of one layer.
    fn cache_bytes(&self, spec: KvSpec) -> usize {
        let octets = spec.n_kv_heads.saturating_mul(spec.head_dim.div_ceil(8));
        self.cells().saturating_mul(octets).saturating_mul(if self.exact { 32 } else { 16 })
    }

    fn readback_bytes(&self, plan: &Plan) -> usize {
        plan.outputs().saturating_mul(4).saturating_mul(self.limits.logits)
    }

    pub(crate) fn footprint(&self, plan: &Plan) -> Footprint {
        let kv = plan.kv.iter().map(|&spec| 2 * self.cache_bytes(spec) as u64).sum();
        let buffers =
            4 * (self.arena.len as u64 + 2 * self.parts.len as u64) + 2 * self.readback_bytes(plan) as u64;
        Footprint { kv_bytes: kv, buffer_bytes: buffers }
    }

    /// That every buffer can be bound.
    fn check(&self, plan: &Plan, device: &Device) -> Result<()> {
        let most = device.info.max_binding_bytes.min(device.info.max_buffer_bytes);
        let check = |what: &str, bytes: usize, advice: &str| {
            if bytes as u64 <= most {
                return Ok(());
            }
            let (mib, most) = (bytes >> 20, most >> 20);
            Err(Error::new(
                ErrorKind::DoesNotFit,
                format!(
                    "the {what} of {mib} MiB exceeds the {most} MiB a kernel of {} can bind; give a smaller {advice}, \
                     or run with --device cpu",
                    device.info.name
                ),
            ))
        };
        check("activations", self.arena.len.saturating_mul(4), "--batch or --ctx")?;
        check("token tables", self.parts.len.saturating_mul(4), "--batch or --ctx")?;
        plan.kv.iter().try_for_each(|&spec| check("KV cache of a layer", self.cache_bytes(spec), "--ctx"))
    }
}

/// See the file's header.
pub(crate) struct GpuRunner {
    plan: Arc<Plan>,
    limits: Limits,
    device: Arc<Device>,
    counters: Arc<Counters>,
    stages: Vec<Stage>,
    folds: Vec<(args::Fold, Launch)>,
    frame: Frame,
    frame_buffer: wgpu::Buffer,
    frame_group: wgpu::BindGroup,
    arena_buffer: wgpu::Buffer,
    arena: Arena,
    logits_at: Place,
    staging: wgpu::Buffer,
    logits: Vec<f32>,
    ahead: Ahead,
    profile: Arc<Profile>,
    stopwatch: Option<Stopwatch>,
}

impl GpuRunner {
    pub(crate) fn new(gpu: &Gpu, plan: Arc<Plan>, limits: Limits) -> Result<GpuRunner> {
        use wgpu::BufferUsages as Usage;
        let (device, pipelines) = (&*gpu.device, &*gpu.pipelines);
        let sizes = Sizes::new(&plan, &limits, gpu);
        sizes.check(&plan, device)?;
        let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let arena_buffer = device.buffer("arena", 4 * sizes.arena.len, usage);
        let vectors = Vectors::new(&plan);
        let vectors_buffer =
            device.buffer("vectors", 4 * vectors.values.len(), Usage::STORAGE | Usage::COPY_DST);
        device.queue.write_buffer(&vectors_buffer, 0, bytemuck::cast_slice(&vectors.values));
        let frame = Frame::new(&plan, &limits);
        let frame_buffer = device.buffer("frame", 4 * frame.words().len(), Usage::STORAGE | Usage::COPY_DST);
        device.queue.write_buffer(&frame_buffer, 0, bytemuck::cast_slice(frame.words()));
        let staging = device.buffer("logits", sizes.readback_bytes(&plan), Usage::MAP_READ | Usage::COPY_DST);
        device.check()?;
        let mut caches = Vec::new();
        for &spec in &plan.kv {
            let bytes = sizes.cache_bytes(spec);
            let [keys, values] = ["keys", "values"].map(|name| device.buffer(name, bytes, Usage::STORAGE));
            device.check()?;
            caches.push(Arc::new(pipelines.bind(device, Binds::Cache, &[&keys, &values])));
        }
        let max_bytes = device.info.max_binding_bytes.min(device.info.max_buffer_bytes);
        let weights = Weights::new(
            device,
            pipelines,
            &plan,
            gpu.decode,
            gpu.choice.layout,
            gpu.progress.clone(),
            usize::try_from(max_bytes).unwrap_or(usize::MAX),
        );
        let mut lower = Lower {
            plan: &plan,
            device,
            pipelines,
            choice: gpu.choice.clone(),
            arena: &sizes.arena,
            regions: &sizes.regions,
            parts: &frame.parts,
            vectors: &vectors,
            caches: &caches,
            weights,
            kv: if gpu.exact { "lib/kv_f32" } else { "lib/kv_f16" },
            next: 0,
            rounded: Default::default(),
        };
        let frame_group = pipelines.bind_frame(device, [&arena_buffer, &vectors_buffer, &frame_buffer]);
        let mut stages = lower.stages()?;
        if gpu.tunes() && tune::tune(&mut lower, &stages, &frame_group, gpu.exact, &limits)? {
            gpu.keep_tuned();
        }
        if gpu.tunes() {
            stages = lower.stages()?;
        }
        let folds = lower.folds()?;
        let logits_at = sizes.arena.place(plan.logits);
        let ahead = Ahead::new(device, pipelines, &gpu.choice, &plan, logits_at, sizes.best)?;
        device.wait()?;
        pipelines.keep();
        Ok(GpuRunner {
            logits_at,
            logits: vec![0.0; plan.outputs() * limits.logits],
            limits,
            device: gpu.device.clone(),
            counters: gpu.counters.clone(),
            stages,
            folds,
            frame,
            frame_buffer,
            frame_group,
            arena_buffer,
            arena: sizes.arena,
            staging,
            ahead,
            profile: gpu.profile.clone(),
            stopwatch: None,
            plan,
        })
    }

    /// The dispatches of a batch, each with its number of rows; for a greedy step also those that choose its token.
    fn launches(&self, n: &Sizing, greedy: bool) -> impl Iterator<Item = (&Launch, usize)> {
        let n = *n;
        let steps = self.stages.iter().flat_map(move |stage| {
            let rows = match stage.rows {
                Rows::Tokens => n.tokens,
                Rows::Logits => n.logits,
            };
            let class = CLASSES.iter().position(|&most| rows <= most);
            let class = class.expect("invariant: the last class has no end");
            let launches = if rows == 0 { &[][..] } else { &stage.launches[class] };
            launches.iter().filter(move |launch| !launch.only_split || n.splits > 1).map(move |l| (l, rows))
        });
        let choice = if greedy { &self.ahead.launches[..] } else { &[] };
        steps.chain(choice.iter().map(|launch| (launch, 1)))
    }

    /// Everything of one batch in one command buffer and one pass.
    fn encode(&self, n: &Sizing, greedy: bool) -> wgpu::CommandBuffer {
        let mut encoder =
            self.device.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        let mut bound = Bound::default();
        let mut dispatches = 0;
        for (launch, rows) in self.launches(n, greedy) {
            bound.dispatch(&mut pass, &self.frame_group, launch, rows, n.splits);
            dispatches += 1;
        }
        drop(pass);
        if greedy {
            self.ahead.copy(&mut encoder, &self.arena_buffer);
        } else {
            self.copy_logits(&mut encoder, n.logits);
        }
        Counters::add(&self.counters.passes, 1);
        Counters::add(&self.counters.dispatches, dispatches);
        encoder.finish()
    }

    /// The same with a pass and two timestamps for each dispatch.
    fn encode_timed(&self, n: &Sizing, stopwatch: &Stopwatch) -> wgpu::CommandBuffer {
        let mut encoder =
            self.device.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut dispatches = 0;
        for (i, (launch, rows)) in self.launches(n, false).enumerate() {
            let timestamp_writes = (i < profile::MOST).then(|| stopwatch.around(i));
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            let mut pass = encoder.begin_compute_pass(&descriptor);
            Bound::default().dispatch(&mut pass, &self.frame_group, launch, rows, n.splits);
            dispatches += 1;
        }
        stopwatch.copy(&mut encoder, dispatches.min(profile::MOST));
        self.copy_logits(&mut encoder, n.logits);
        Counters::add(&self.counters.passes, dispatches);
        Counters::add(&self.counters.dispatches, dispatches);
        encoder.finish()
    }

    fn copy_logits(&self, encoder: &mut wgpu::CommandEncoder, logits: usize) {
        let row = 4 * self.plan.outputs() as u64;
        for l in 0..logits as u64 {
            let from = 4 * (u64::from(self.logits_at.base) + l * u64::from(self.logits_at.stride));
            encoder.copy_buffer_to_buffer(&self.arena_buffer, from, &self.staging, l * row, row);
        }
    }

    /// Checks a batch and tells the device what changed.
    fn tell(&mut self, batch: &Batch<'_>, fed: bool) -> Result<Sizing> {
        batch.validate(&self.plan, &self.limits)?;
        let (queue, buffer, counters) = (&self.device.queue, &self.frame_buffer, &self.counters);
        let pages = self.frame.update(batch, self.plan.axes, fed, |at, words| {
            queue.write_buffer(buffer, 4 * at as u64, bytemuck::cast_slice(words));
            Counters::add(&counters.written_bytes, 4 * words.len());
        });
        let (tokens, logits) = (batch.tokens.len(), batch.logits.len());
        Ok(Sizing { tokens, logits, splits: splits(tokens, pages) })
    }

    fn submit(&self, commands: wgpu::CommandBuffer) -> wgpu::SubmissionIndex {
        Counters::add(&self.counters.submits, 1);
        Counters::add(&self.counters.steps, 1);
        self.device.queue.submit([commands])
    }

    /// Waits for the logits and copies them out.
    fn read(&mut self, logits: usize) -> Result<()> {
        let bytes = 4 * (logits * self.plan.outputs()) as u64;
        if bytes == 0 {
            return self.device.wait();
        }
        let (sender, receiver) = mpsc::channel();
        self.staging.map_async(wgpu::MapMode::Read, 0..bytes, move |outcome| {
            let _ = sender.send(outcome);
        });
        self.device.wait()?;
        let lost = || Error::new(ErrorKind::Device, "the graphics device gave no results back");
        // Another runner of the device may be the one that hears of it, a moment later.
        receiver.recv_timeout(ANSWER).map_err(|_| lost())?.map_err(|_| lost())?;
        let view = self.staging.get_mapped_range(0..bytes).map_err(|_| lost())?;
        let values = bytemuck::cast_slice_mut::<f32, u8>(&mut self.logits[..logits * self.plan.outputs()]);
        values.copy_from_slice(&view);
        drop(view);
        self.staging.unmap();
        self.device.check()
    }
}

impl Runner for GpuRunner {
    fn run(&mut self, batch: &Batch<'_>) -> Result<&[f32]> {
        while self.ahead.busy() {
            self.ahead.finish(&self.device)?;
        }
        let n = self.tell(batch, false)?;
        if self.profile.is_on() {
            let stopwatch = self.stopwatch.take().unwrap_or_else(|| Stopwatch::new(&self.device));
            self.submit(self.encode_timed(&n, &stopwatch));
            self.read(n.logits)?;
            let timed = self.launches(&n, false).take(profile::MOST);
            let seconds = stopwatch.seconds(&self.device, timed.count())?;
            for ((launch, _), seconds) in self.launches(&n, false).zip(seconds) {
                self.profile.add(launch, seconds);
            }
            self.stopwatch = Some(stopwatch);
        } else {
            self.submit(self.encode(&n, false));
            self.read(n.logits)?;
        }
        Ok(&self.logits[..n.logits * self.plan.outputs()])
    }

    fn fill(&mut self, buffer: BufferId, rows: &[f32]) -> Result<()> {
        let spec = self.plan.buffers.get(buffer.index());
        let spec = spec.filter(|spec| rows.len() <= spec.width * row_limit(spec.rows, &self.limits));
        let spec = spec.ok_or_else(|| Error::usage(format!("buffer {} holds fewer rows", buffer.0)))?;
        let place = self.arena.place(buffer);
        for (t, row) in rows.chunks(spec.width).enumerate() {
            let at = 4 * (u64::from(place.base) + t as u64 * u64::from(place.stride));
            self.device.queue.write_buffer(&self.arena_buffer, at, bytemuck::cast_slice(row));
        }
        Counters::add(&self.counters.written_bytes, 4 * rows.len());
        Ok(())
    }

    fn fold(&mut self, pages: &[u32], old: usize, sinks: usize, keep: usize) -> Result<()> {
        let list: Vec<f32> = pages.iter().map(|&page| page as f32).collect();
        let told = |&(args, ref launch): &(args::Fold, Launch)| {
            let (pages, old) = (pages.len() as u32, old as u32);
            let args = args::Fold { pages, old, sinks: sinks as u32, keep: keep as u32, ..args };
            launch.clone().told(&args)
        };
        let launches: Vec<Launch> = self.folds.iter().map(told).collect();
        if let Some((args, _)) = self.folds.first() {
            let at = 4 * u64::from(args.list);
            self.device.queue.write_buffer(&self.arena_buffer, at, bytemuck::cast_slice(&list));
        }
        let mut encoder =
            self.device.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        let mut bound = Bound::default();
        for launch in &launches {
            bound.dispatch(&mut pass, &self.frame_group, launch, 1, 1);
        }
        drop(pass);
        self.submit(encoder.finish());
        self.device.check()
    }

    fn greedy(&mut self) -> Option<&mut dyn Greedy> {
        Some(self)
    }
}

impl Greedy for GpuRunner {
    fn begin(&mut self, batch: &Batch<'_>, fed: bool) -> Result<()> {
        self.ahead.check_room()?;
        if batch.tokens.len() != 1 || batch.logits.len() != 1 {
            return Err(Error::usage("a greedy step is one token whose logits are wanted"));
        }
        let n = self.tell(batch, fed)?;
        let submission = self.submit(self.encode(&n, true));
        self.ahead.submitted(submission);
        Ok(())
    }

    fn finish(&mut self) -> Result<u32> {
        self.ahead.finish(&self.device)
    }
}

/// How large a batch is.
#[derive(Clone, Copy, Debug)]
struct Sizing {
    tokens: usize,
    logits: usize,
    /// Parts attention is split into.
    splits: usize,
}

/// What is set in a pass, so that it is not set again.
#[derive(Default)]
pub(crate) struct Bound<'a> {
    last: Option<&'a Launch>,
    group: Option<&'a Arc<wgpu::BindGroup>>,
}

impl<'a> Bound<'a> {
    pub(crate) fn dispatch(
        &mut self,
        pass: &mut wgpu::ComputePass<'_>,
        frame: &wgpu::BindGroup,
        launch: &'a Launch,
        rows: usize,
        splits: usize,
    ) {
        if self.last.is_none() {
            pass.set_bind_group(0, frame, &[]);
        }
        if self.last.is_none_or(|last| !Arc::ptr_eq(&last.pipeline, &launch.pipeline)) {
            pass.set_pipeline(&launch.pipeline);
        }
        self.last = Some(launch);
        if let Some(own) = &launch.group
            && self.group.is_none_or(|last| !Arc::ptr_eq(last, own))
        {
            pass.set_bind_group(1, &**own, &[]);
            self.group = Some(own);
        }
        let (words, bytes) = launch.immediates(rows, splits);
        pass.set_immediates(0, &bytemuck::bytes_of(&words)[..bytes]);
        let [x, y, z] = launch.groups(rows, splits);
        pass.dispatch_workgroups(x, y, z);
    }
}

/// Parts attention is split into: enough work for a whole device where there are few tokens.
fn splits(tokens: usize, pages: usize) -> usize {
    if tokens > CLASSES[1] { 1 } else { (pages * PAGE_CELLS / SPLIT_CELLS).clamp(1, MAX_SPLITS) }
}
