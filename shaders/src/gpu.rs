//! The GPU back end: options, choice of kernels, what must fit.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cchaha_plan::{Backend, Error, ErrorKind, Footprint, Format, Limits, Plan, Result, Runner};

use crate::device::{AdapterInfo, AdapterKind, Device};
use crate::formats::{Decode, LAYOUTS};
use crate::lower::CLASSES;
use crate::pipelines::Pipelines;
use crate::profile::{KernelTime, Profile};
use crate::registry::{Kernel, plain, registry};
use crate::runner::{GpuRunner, Sizes};
use crate::tune::{self, Chosen, Tune, Tuned};
use crate::weights::Progress;
use crate::{probe, selftest};

/// How a [`Gpu`] works.
#[derive(Clone)]
pub struct GpuOptions<'a> {
    /// How blocks of quantized formats are read.
    pub decode: Decode,
    /// f32 KV instead of 16 bits.
    pub exact: bool,
    /// Part of the name of the adapter to use; the best one where `None`.
    pub adapter: Option<&'a str>,
    /// Prefer this row of [`registry`] or of [`LAYOUTS`] wherever it fits; several with commas between them, of which those made for
    /// so many rows (tokens) come first.
    pub kernel: Option<&'a str>,
    /// Kernels with clamped indices and bounded loops: slower, for tests.
    pub checked: bool,
    /// Have the graphics API's validation layer, where it is installed, look at every call: slow, for tests.
    pub validation: bool,
    /// Told of the upload of weights.
    pub progress: Option<Progress>,
    /// Checks every picked kernel when a model is loaded; no check without it.
    pub reference: Option<Arc<dyn Backend>>,
    /// Folder that keeps compiled kernels, and what was chosen by time, from run to run.
    pub cache: Option<PathBuf>,
    /// Whether rows of matrix kernels are chosen by time.
    pub tune: Tune,
}

impl GpuOptions<'_> {
    /// The best adapter, f16 KV, the kernels it chooses itself, unchecked; nothing kept, nobody told.
    pub fn new(decode: Decode) -> GpuOptions<'static> {
        GpuOptions {
            decode,
            exact: false,
            adapter: None,
            kernel: None,
            checked: false,
            validation: false,
            progress: None,
            reference: None,
            cache: None,
            tune: Tune::Never,
        }
    }
}

/// What was done since the start, over all runners of a back end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Batches run.
    pub steps: u64,
    /// Queue submissions.
    pub submits: u64,
    /// Compute passes.
    pub passes: u64,
    /// Dispatches.
    pub dispatches: u64,
    /// Bind groups made.
    pub bind_groups: u64,
    /// Bytes written to buffers of the device by [`Runner::run`].
    pub written_bytes: u64,
    /// Errors the graphics API reported.
    pub faults: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) steps: AtomicU64,
    pub(crate) submits: AtomicU64,
    pub(crate) passes: AtomicU64,
    pub(crate) dispatches: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }

    fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            steps: get(&self.steps),
            submits: get(&self.submits),
            passes: get(&self.passes),
            dispatches: get(&self.dispatches),
            bind_groups: 0,
            faults: 0,
            written_bytes: get(&self.written_bytes),
        }
    }
}

/// The rows of the table this device and these options lead to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choice {
    preferred: Vec<&'static Kernel>,
    pub(crate) layout: Option<&'static str>,
    /// Names of the rows the device cannot run.
    unavailable: Arc<[&'static str]>,
    /// What was chosen by time.
    tuned: Tuned,
    /// Rows that computed a format wrongly on this device.
    quarantine: Arc<Mutex<Vec<(&'static str, Format)>>>,
}

impl Choice {
    fn new(device: &Device, name: Option<&str>) -> Result<Choice> {
        let rows = || registry().iter().chain(plain());
        let unavailable = rows().filter(|row| row.lacks(&device.info).is_some()).map(|row| row.name);
        let mut choice = Choice { unavailable: unavailable.collect(), ..Choice::default() };
        for name in name.into_iter().flat_map(|names| names.split(',')) {
            let row = rows().find(|row| row.name == name);
            let layout = LAYOUTS.iter().find(|row| row.name == name).map(|row| row.name);
            if row.is_none() && layout.is_none() {
                return Err(Error::usage(format!(
                    "no GPU kernel is called {name:?}; see `cchaha-run kernels --device gpu`"
                )));
            }
            if let Some(what) = row.and_then(|row| row.lacks(&device.info)) {
                return Err(Error::usage(format!(
                    "kernel {name} needs {what}, which {} does not have",
                    device.info.name
                )));
            }
            choice.preferred.extend(row);
            choice.layout = layout.or(choice.layout);
        }
        Ok(choice)
    }

    /// The same with another preference.
    pub(crate) fn preferring(&self, row: &'static Kernel) -> Choice {
        Choice { preferred: vec![row], ..self.clone() }
    }

    /// The row chosen by time for so many rows.
    pub(crate) fn tuned(&self, op: &str, format: Format, rows: usize) -> Option<&'static Kernel> {
        let tuned = self.tuned.lock().unwrap_or_else(PoisonError::into_inner);
        let class = CLASSES.into_iter().find(|&most| rows <= most);
        let meant = |c: &&Chosen| c.op == op && c.format == format && class == Some(c.most_rows);
        tuned.iter().find(meant).map(|chosen| chosen.kernel)
    }

    pub(crate) fn add_tuned(&self, chosen: Chosen) {
        self.tuned.lock().unwrap_or_else(PoisonError::into_inner).push(chosen);
    }

    /// The same without what was chosen by time: rows that are too coarse for `--exact` may be among it.
    fn untuned(&self) -> Choice {
        Choice { tuned: Tuned::default(), ..self.clone() }
    }

    fn all_tuned(&self) -> Vec<Chosen> {
        self.tuned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets a row aside for a format.
    pub(crate) fn set_aside(&self, kernel: &'static str, format: Format) {
        self.quarantine.lock().unwrap_or_else(PoisonError::into_inner).push((kernel, format));
    }

    /// Whether a row can compute an op on this device, rightly.
    pub(crate) fn fits(&self, row: &Kernel, op: &str, format: Option<Format>) -> bool {
        let quarantine = self.quarantine.lock().unwrap_or_else(PoisonError::into_inner);
        let works = format.is_none_or(|format| !quarantine.contains(&(row.name, format)));
        row.accepts(op, format) && self.available(row) && works
    }

    fn available(&self, row: &Kernel) -> bool {
        !self.unavailable.contains(&row.name)
    }

    /// The row for an op on `rows` rows, `usize::MAX` for many.
    pub(crate) fn kernel(&self, op: &str, format: Option<Format>, rows: usize) -> Option<&'static Kernel> {
        let fits = |row: &&Kernel| self.fits(row, op, format);
        let mut asked = self.preferred.iter().copied().filter(fits);
        let preferred = asked.clone().find(|row| rows <= row.most_rows).or_else(|| asked.next());
        let tuned = || format.and_then(|format| self.tuned(op, format, rows)).filter(|row| fits(row));
        // A row that is meant for fewer computes more as well, slowly: it serves where all others are set aside.
        let others = registry().iter().filter(|row| !row.narrows() && fits(row));
        let meant = || others.clone().find(|row| rows <= row.most_rows);
        let any = || others.clone().rfind(|_| op == "MatMul");
        preferred.or_else(tuned).or_else(meant).or_else(any)
    }
}

/// The back end on a graphics adapter.
#[derive(Clone)]
pub struct Gpu {
    pub(crate) device: Arc<Device>,
    pub(crate) pipelines: Arc<Pipelines>,
    pub(crate) choice: Choice,
    pub(crate) decode: Decode,
    pub(crate) exact: bool,
    pub(crate) progress: Option<Progress>,
    reference: Option<Arc<dyn Backend>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) profile: Arc<Profile>,
    tune: Tune,
    /// Keeps what was chosen by time.
    tuned_file: Option<PathBuf>,
}

impl Gpu {
    /// Opens an adapter.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] where there is none or it cannot be used, [`ErrorKind::Usage`] for unknown names.
    pub fn new(options: &GpuOptions<'_>) -> Result<Gpu> {
        Gpu::on(Device::open(options.adapter, options.validation)?, options)
    }

    /// A back end that encodes everything and computes nothing, for measuring the cost of encoding.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for an unknown kernel.
    pub fn noop(options: &GpuOptions<'_>) -> Result<Gpu> {
        Gpu::on(Device::noop(), options)
    }

    fn on(device: Device, options: &GpuOptions<'_>) -> Result<Gpu> {
        let choice = Choice::new(&device, options.kernel)?;
        let tuned_file = options.cache.as_deref().map(|folder| tune::path(folder, &device, options.exact));
        if let Some(file) = &tuned_file {
            tune::load(file).into_iter().for_each(|chosen| choice.add_tuned(chosen));
        }
        let pipelines = Pipelines::new(&device, options.checked, options.cache.as_deref());
        device.check()?;
        Ok(Gpu {
            device: Arc::new(device),
            pipelines: Arc::new(pipelines),
            choice,
            decode: options.decode,
            exact: options.exact,
            progress: options.progress.clone(),
            reference: options.reference.clone(),
            counters: Arc::default(),
            profile: Arc::default(),
            tune: options.tune,
            tuned_file,
        })
    }

    /// The same device with another preference, and with a KV cache in f32 where `exact`. Pipelines are shared.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for an unknown kernel.
    pub fn with(&self, kernel: &str, exact: bool) -> Result<Gpu> {
        Ok(Gpu { choice: Choice::new(&self.device, Some(kernel))?, exact, ..self.clone() })
    }

    /// The same device with a KV cache in f32 where `exact`. Pipelines are shared.
    pub fn with_exact(&self, exact: bool) -> Gpu {
        Gpu { exact, choice: self.choice.untuned(), tuned_file: None, ..self.clone() }
    }

    /// Whether shaders check their indices.
    pub fn checked(&self) -> bool {
        self.pipelines.checked
    }

    /// The adapter in use.
    pub fn adapter(&self) -> &AdapterInfo {
        &self.device.info
    }

    /// The row of [`registry`] used for an op on `rows` rows of weights of this format.
    pub fn kernel(&self, op: &str, format: Option<Format>, rows: usize) -> Option<&'static Kernel> {
        self.choice.kernel(op, format, rows)
    }

    /// What its runners did so far.
    pub fn counts(&self) -> Counts {
        let bind_groups = self.pipelines.bound.load(Ordering::Relaxed);
        Counts { bind_groups, faults: self.device.faults(), ..self.counters.counts() }
    }

    /// Checks the rows that are picked for a plan, where there is a reference; whether any was set aside.
    fn check_kernels(&self, plan: &Plan) -> Result<bool> {
        let Some(reference) = &self.reference else { return Ok(false) };
        // Small trials are nothing to choose by, and nobody waits for their upload.
        let trial = Gpu { tune: Tune::Never, progress: None, ..self.clone() };
        let messages = selftest::check(&trial, plan, &**reference)?;
        messages.iter().for_each(|message| tracing::warn!("{message}"));
        Ok(!messages.is_empty())
    }

    /// Whether runners time the rows they may choose from.
    pub(crate) fn tunes(&self) -> bool {
        let info = &self.device.info;
        let wanted = match self.tune {
            Tune::Never => false,
            Tune::Hardware => info.kind != AdapterKind::Software,
            Tune::Always => true,
        };
        wanted && self.choice.preferred.is_empty() && info.features.contains(&"timestamps")
    }

    /// Keeps what was chosen by time.
    pub(crate) fn keep_tuned(&self) {
        if let Some(file) = &self.tuned_file {
            tune::save(file, &self.choice.all_tuned());
        }
    }

    /// What was chosen by time.
    pub fn tuned(&self) -> Vec<Chosen> {
        self.choice.all_tuned()
    }

    /// Sets a row aside for a format.
    pub(crate) fn quarantine(&self, kernel: &'static str, format: Format) {
        self.choice.set_aside(kernel, format);
    }

    /// Names and formats of the rows that failed the check at load.
    pub fn quarantined(&self) -> Vec<(&'static str, Format)> {
        self.choice.quarantine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on every dispatch of its runners is timed, or none.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] where the adapter has no timestamps.
    pub fn set_profile(&self, on: bool) -> Result<()> {
        if on && !self.device.info.features.contains(&"timestamps") {
            let message =
                format!("{} has no timestamps, so its kernels cannot be timed", self.device.info.name);
            return Err(Error::new(ErrorKind::Device, message));
        }
        self.profile.set(on);
        Ok(())
    }

    /// What kernels took since the last call.
    pub fn take_times(&self) -> Vec<KernelTime> {
        self.profile.take()
    }

    /// How fast the device reads its memory, in bytes per second.
    ///
    /// # Errors
    /// Those of the device.
    pub fn read_bytes_per_s(&self) -> Result<f64> {
        probe::read_bytes_per_s(self)
    }

    /// Destroys the device, as losing it would: for tests of what happens then.
    pub fn destroy(&self) {
        self.device.device.destroy();
    }
}

impl Backend for Gpu {
    fn name(&self) -> String {
        let exact = if self.exact { ", exact" } else { "" };
        format!("gpu ({}, {}{exact})", self.device.info.name, self.device.info.api)
    }

    fn footprint(&self, plan: &Plan, limits: &Limits) -> Footprint {
        Sizes::new(plan, limits, self).footprint(plan)
    }

    fn prepare(&self, plan: Arc<Plan>, limits: Limits) -> Result<Box<dyn Runner>> {
        plan.validate()?;
        if limits.cells == 0 || limits.batch == 0 || limits.logits == 0 {
            return Err(Error::usage("cells, batch and logits rows must not be zero"));
        }
        if limits.batch > 65535 {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("a batch of {} tokens: give 65535 or less", limits.batch),
            ));
        }
        self.check_kernels(&plan)?;
        let tuned = self.tuned().len();
        let mut runner = GpuRunner::new(self, plan.clone(), limits)?;
        // What was chosen just now has not been checked yet.
        if self.tuned().len() > tuned && self.check_kernels(&plan)? {
            runner = GpuRunner::new(self, plan, limits)?;
        }
        Ok(Box::new(runner))
    }
}
