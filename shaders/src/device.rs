//! The only file that opens a device and the only one with `unsafe`: choice of the adapter, limits, errors, shader modules.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cchaha_plan::{Error, ErrorKind, Result};

use crate::registry::{COOPERATIVE_8, COOPERATIVE_16};
use crate::store;

/// What an adapter is, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A graphics card with memory of its own.
    Discrete,
    /// A graphics unit that shares the processor's memory.
    Integrated,
    /// A graphics unit lent by a hypervisor, or of a kind the driver does not tell.
    Other,
    /// A processor that pretends: always slower than this engine's own SIMD kernels.
    Software,
}

impl std::fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            AdapterKind::Discrete => "discrete",
            AdapterKind::Integrated => "integrated",
            AdapterKind::Other => "other",
            AdapterKind::Software => "software",
        })
    }
}

/// What is known of an adapter before it is opened.
#[derive(Clone, Debug)]
pub struct AdapterInfo {
    /// The driver's name for it.
    pub name: String,
    /// `vulkan`, `metal` or `dx12`.
    pub api: String,
    /// The driver and its version.
    pub driver: String,
    /// What it is.
    pub kind: AdapterKind,
    /// Why it cannot be used, if so.
    pub refused: Option<String>,
    /// Bytes of the largest storage buffer a kernel can see.
    pub max_binding_bytes: u64,
    /// Bytes of the largest buffer.
    pub max_buffer_bytes: u64,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Smallest and largest subgroup; zero where there are none.
    pub subgroup: (u32, u32),
    /// Names of the optional features it has and this crate may use.
    pub features: Vec<&'static str>,
}

/// Bytes of immediates every kernel may use.
pub(crate) const IMMEDIATE_BYTES: u32 = 128;

/// How long the device's answer may stay away once its work is done.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// Invocations of the largest workgroup, and bytes of workgroup memory it needs.
pub(crate) const INVOCATIONS: u32 = 256;
pub(crate) const WORKGROUP_BYTES: u32 = 16 << 10;

const OPTIONAL: [(&str, wgpu::Features); 5] = [
    ("subgroups", wgpu::Features::SUBGROUP),
    ("f16", wgpu::Features::SHADER_F16),
    ("timestamps", wgpu::Features::TIMESTAMP_QUERY),
    ("timestamps in passes", wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES),
    ("pipeline cache", wgpu::Features::PIPELINE_CACHE),
];

fn optional() -> wgpu::Features {
    OPTIONAL.iter().fold(wgpu::Features::empty(), |all, (_, feature)| all | *feature)
}

/// The configurations of cooperative matrices that kernels are written for and the adapter lists: square ones of half floats with
/// f32 sums. The kernels also need half floats elsewhere, and to know their subgroup.
fn cooperative(adapter: &wgpu::Adapter) -> impl Iterator<Item = &'static str> {
    use wgpu::CooperativeScalarType::{F16, F32};
    let needed = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
        | wgpu::Features::SHADER_F16
        | wgpu::Features::SUBGROUP;
    let usable = adapter.features().contains(needed);
    let configurations = if usable { adapter.cooperative_matrix_properties() } else { Vec::new() };
    [(8, COOPERATIVE_8), (16, COOPERATIVE_16)].into_iter().filter_map(move |(side, name)| {
        let fits = |c: &wgpu::CooperativeMatrixProperties| {
            [c.m_size, c.n_size, c.k_size] == [side; 3] && (c.ab_type, c.cr_type) == (F16, F32)
        };
        configurations.iter().any(fits).then_some(name)
    })
}

/// Leave to use features whose interface wgpu calls experimental.
#[allow(unsafe_code)]
fn experimental() -> wgpu::ExperimentalFeatures {
    // SAFETY: the caller acknowledges that wgpu may have bugs in these features. The one that is asked for, cooperative matrices, is
    // used by one kernel of this crate, only in configurations that the adapter lists, on panels in workgroup memory whose
    // offsets are constants of the kernel; its results are compared with the CPU's before it is used.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

fn info(adapter: &wgpu::Adapter) -> AdapterInfo {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
        wgpu::DeviceType::Cpu => AdapterKind::Software,
        _ => AdapterKind::Other,
    };
    let refused = if !features.contains(wgpu::Features::IMMEDIATES) {
        Some("its driver has no immediates (push constants)".to_owned())
    } else if limits.max_immediate_size < IMMEDIATE_BYTES {
        Some(format!("its immediates hold {} bytes of {IMMEDIATE_BYTES}", limits.max_immediate_size))
    } else if limits.max_compute_invocations_per_workgroup < INVOCATIONS {
        Some(format!("its workgroups hold fewer than {INVOCATIONS} invocations"))
    } else if limits.max_compute_workgroup_storage_size < WORKGROUP_BYTES {
        Some(format!("its workgroups have less than {WORKGROUP_BYTES} bytes of memory"))
    } else {
        None
    };
    let subgroup = if features.contains(wgpu::Features::SUBGROUP) {
        (info.subgroup_min_size, info.subgroup_max_size)
    } else {
        (0, 0)
    };
    AdapterInfo {
        name: info.name,
        api: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        kind,
        refused,
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        subgroup,
        features: OPTIONAL
            .iter()
            .filter(|(_, f)| features.contains(*f))
            .map(|(name, _)| *name)
            .chain(cooperative(adapter))
            .collect(),
    }
}

fn found(validation: bool) -> Vec<(AdapterInfo, wgpu::Adapter)> {
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        flags: if validation { wgpu::InstanceFlags::VALIDATION } else { wgpu::InstanceFlags::empty() },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapters = pollster::block_on(instance.enumerate_adapters(backends));
    let mut adapters: Vec<_> = adapters.into_iter().map(|adapter| (info(&adapter), adapter)).collect();
    // Usable before refused, then by kind, then by the size of what a kernel can see.
    adapters.sort_by_key(|(info, _)| {
        (info.refused.is_some(), info.kind, std::cmp::Reverse(info.max_binding_bytes))
    });
    adapters
}

/// Whether the system has any graphics hardware, without waking its drivers: they take a tenth of a second and some print to the
/// terminal. `true` where the system does not say.
pub fn hardware_present() -> bool {
    // Linux: kernel mode setting, NVIDIA's own driver, WSL.
    let nodes = ["/dev/dri", "/dev/nvidiactl", "/dev/dxg"];
    !cfg!(target_os = "linux") || nodes.iter().any(|node| std::path::Path::new(node).exists())
}

/// Every adapter, the one that would be chosen first.
pub fn adapters() -> Vec<AdapterInfo> {
    found(false).into_iter().map(|(info, _)| info).collect()
}

/// What went wrong on the device since it was last asked.
#[derive(Clone, Debug)]
struct Fault {
    kind: ErrorKind,
    message: String,
}

#[derive(Debug, Default)]
struct Faults {
    first: Mutex<Option<Fault>>,
    noted: AtomicU64,
}

impl Faults {
    fn note(&self, kind: ErrorKind, message: String) {
        self.noted.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(Fault { kind, message });
    }
}

/// An open device.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) info: AdapterInfo,
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    /// Names the adapter among those whose compiled pipelines are not to be mixed up; none where the API keeps none.
    cache_key: Option<String>,
    faults: Arc<Faults>,
}

impl Device {
    /// Opens the best adapter, or the best whose name contains `wanted` (letter case ignored).
    pub(crate) fn open(wanted: Option<&str>, validation: bool) -> Result<Device> {
        let mut adapters = found(validation);
        if adapters.is_empty() {
            return Err(Error::new(
                ErrorKind::Device,
                "no graphics adapter was found; install a Vulkan driver, or run with --device cpu",
            ));
        }
        if let Some(wanted) = wanted {
            let names: Vec<String> = adapters.iter().map(|(info, _)| info.name.clone()).collect();
            adapters.retain(|(info, _)| info.name.to_lowercase().contains(&wanted.to_lowercase()));
            if adapters.is_empty() {
                let names = names.join(", ");
                return Err(Error::usage(format!(
                    "no graphics adapter is called {wanted:?}; there are: {names}"
                )));
            }
        }
        let (info, adapter) = adapters.swap_remove(0);
        if let Some(reason) = &info.refused {
            let message =
                format!("the graphics adapter {} cannot be used: {reason}; run with --device cpu", info.name);
            return Err(Error::new(ErrorKind::Device, message));
        }
        let (cooperative, experimental_features) = match cooperative(&adapter).next() {
            Some(_) => (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, experimental()),
            None => (wgpu::Features::empty(), wgpu::ExperimentalFeatures::disabled()),
        };
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("cchaha"),
            required_features: wgpu::Features::IMMEDIATES | (adapter.features() & optional()) | cooperative,
            required_limits: adapter.limits(),
            experimental_features,
            ..wgpu::DeviceDescriptor::default()
        };
        let opened = pollster::block_on(adapter.request_device(&descriptor));
        let (device, queue) = opened.map_err(|error| {
            Error::new(
                ErrorKind::Device,
                format!("the graphics adapter {} does not open: {error}", info.name),
            )
        })?;
        let cache_key = wgpu::util::pipeline_cache_key(&adapter.get_info())
            .filter(|_| adapter.features().contains(wgpu::Features::PIPELINE_CACHE));
        Ok(Device { cache_key, ..Device::new(info, device, queue) })
    }

    /// A device that computes nothing, for measuring what the encoding of commands costs.
    pub(crate) fn noop() -> Device {
        let descriptor = wgpu::DeviceDescriptor {
            required_features: wgpu::Features::IMMEDIATES,
            required_limits: wgpu::Limits { max_immediate_size: IMMEDIATE_BYTES, ..wgpu::Limits::default() },
            ..wgpu::DeviceDescriptor::default()
        };
        let (device, queue) = wgpu::Device::noop(&descriptor);
        let limits = device.limits();
        let info = AdapterInfo {
            name: "no-op".into(),
            api: "noop".into(),
            driver: String::new(),
            kind: AdapterKind::Other,
            refused: None,
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            max_buffer_bytes: limits.max_buffer_size,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            subgroup: (0, 0),
            features: Vec::new(),
        };
        Device::new(info, device, queue)
    }

    fn new(info: AdapterInfo, device: wgpu::Device, queue: wgpu::Queue) -> Device {
        let faults = Arc::new(Faults::default());
        let noted = faults.clone();
        device.on_uncaptured_error(Arc::new(move |error| match error {
            wgpu::Error::OutOfMemory { .. } => {
                noted.note(ErrorKind::DoesNotFit, "the graphics memory is full".into());
            }
            other => noted.note(ErrorKind::Device, format!("the graphics device reports: {other}")),
        }));
        let noted = faults.clone();
        device.set_device_lost_callback(move |_, message| {
            noted.note(ErrorKind::Device, format!("the graphics device is lost: {message}"));
        });
        Device { info, device, queue, cache_key: None, faults }
    }

    /// The first error since the last call, if there was one.
    pub(crate) fn check(&self) -> Result<()> {
        let mut first = self.faults.first.lock().unwrap_or_else(PoisonError::into_inner);
        match first.take() {
            None => Ok(()),
            Some(fault) => Err(Error::new(fault.kind, format!("{} ({})", fault.message, self.info.name))),
        }
    }

    /// Errors reported so far.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.noted.load(Ordering::Relaxed)
    }

    /// Waits until everything submitted is done.
    pub(crate) fn wait(&self) -> Result<()> {
        self.wait_for(None)
    }

    /// Waits until a submission, or everything, is done.
    pub(crate) fn wait_for(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let waited = self.device.poll(wgpu::PollType::Wait { submission_index, timeout: None });
        waited.map_err(|error| {
            Error::new(ErrorKind::Device, format!("the graphics device does not answer: {error}"))
        })?;
        self.check()
    }

    pub(crate) fn buffer(&self, label: &str, bytes: usize, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes.next_multiple_of(16).max(16) as u64,
            usage,
            mapped_at_creation: false,
        })
    }

    /// Compiled pipelines as they were kept in a folder, and the file that keeps them. None where the device keeps none.
    #[allow(unsafe_code)]
    pub(crate) fn pipeline_cache(&self, folder: &Path) -> Option<(wgpu::PipelineCache, PathBuf)> {
        let file = store::path(folder, self.cache_key.as_deref()?);
        let data = store::load(&file);
        let descriptor = wgpu::PipelineCacheDescriptor {
            label: Some("cchaha"),
            data: data.as_deref(),
            // Of another version of the driver: begin anew.
            fallback: true,
        };
        // SAFETY: the data is what PipelineCache::get_data gave, which its checksum shows, or there is none.
        let cache = unsafe { self.device.create_pipeline_cache(&descriptor) };
        Some((cache, file))
    }

    /// A shader module of this crate's own WGSL. `checked` has every index clamped and every loop bounded.
    #[allow(unsafe_code)]
    pub(crate) fn module(&self, label: &str, source: String, checked: bool) -> wgpu::ShaderModule {
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(label),
            source: wgpu::ShaderSource::Wgsl(source.into()),
        };
        if checked {
            return self.device.create_shader_module(descriptor);
        }
        // SAFETY: the source is composed of this crate's modules only. Every index follows from sizes that Plan::validate and
        // Batch::validate checked, loops end by their bounds, and the conformance tests run every kernel in its
        // checked and its unchecked form.
        unsafe {
            self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
        }
    }
}
