//! Which back end runs a session.

use std::sync::Arc;

use cchaha_kernels::{Cpu, CpuOptions, Isa, Oracle, formats};
use cchaha_plan::{Backend, Format};
use cchaha_shaders::{self as shaders, AdapterKind, Blocks, Gpu, GpuOptions, Tune};

use crate::cache;
use crate::error::{Error, Result};
use crate::fallback::Fallback;
use crate::memory::memory;
use crate::offload::Offload;
use crate::session::SessionOptions;

/// Where a session computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The fastest this build and machine have.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The graphics processor.
    Gpu,
    /// Plain f64 arithmetic: the specification, slow.
    Oracle,
}

/// Names as options spell them, in the order of [`Device`].
pub const DEVICES: [(&str, Device); 4] =
    [("auto", Device::Auto), ("cpu", Device::Cpu), ("gpu", Device::Gpu), ("oracle", Device::Oracle)];

impl std::str::FromStr for Device {
    type Err = Error;

    fn from_str(name: &str) -> Result<Device> {
        DEVICES.iter().find(|row| row.0 == name).map(|row| row.1).ok_or_else(|| {
            let names: Vec<&str> = DEVICES.iter().map(|row| row.0).collect();
            Error::usage(format!("no device is called {name:?}; choose one of {}", names.join(", ")))
        })
    }
}

/// The processor as these options ask for it.
///
/// # Errors
/// [`crate::ErrorKind::Usage`] for threads, instructions and kernels this machine cannot have.
pub fn cpu(options: &SessionOptions) -> Result<Cpu> {
    let isa = options.isa.as_deref().map(isa).transpose()?;
    let kernel = options.kernel.as_deref();
    // Packed weights cannot be dropped and read again as those of a file can: half the memory is theirs at most.
    let room = || memory().map_or(usize::MAX, |memory| memory.available as usize / 2);
    let pack = if options.repack { room() } else { 0 };
    Ok(Cpu::new(CpuOptions { threads: options.threads, exact: options.exact, isa, kernel, pack })?)
}

fn isa(name: &str) -> Result<Isa> {
    Isa::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Isa::ALL.iter().map(|isa| isa.name()).collect();
        Error::usage(format!("no instruction set is called {name:?}; choose one of {}", names.join(", ")))
    })
}

/// How the GPU reads blocks: with the CPU's decoders.
pub fn blocks(format: Format) -> Option<Blocks> {
    formats::ops(format).blocks.map(|blocks| Blocks { sub: blocks.sub, unpack: blocks.unpack })
}

/// A back end, and the graphics device if it computes there.
pub(crate) struct Opened {
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) gpu: Option<Gpu>,
}

impl Opened {
    fn on_cpu(options: &SessionOptions) -> Result<Opened> {
        Ok(Opened { backend: Box::new(cpu(options)?), gpu: None })
    }

    /// The graphics device with the processor for the layers it does not take, and to go on where it fails.
    fn on_gpu(gpu: Gpu, cpu: Cpu, options: &SessionOptions) -> Opened {
        let offload = Offload { device: gpu.clone(), cpu: cpu.clone(), layers: options.gpu_layers };
        Opened { backend: Box::new(Fallback { first: offload, cpu }), gpu: Some(gpu) }
    }
}

/// The GPU, and the processor beside it.
fn gpu(options: &SessionOptions) -> Result<(Gpu, Cpu)> {
    let row = |name: &&str| shaders::registry().iter().any(|row| row.name == *name);
    let layout = |name: &&str| shaders::LAYOUTS.iter().any(|row| row.name == *name);
    let kernel = options.kernel.as_deref();
    let gpu_kernel = kernel.filter(|names| names.split(',').any(|name| row(&name) || layout(&name)));
    let cpu_options = SessionOptions { kernel: None, ..options.clone() };
    let cpu = cpu(if gpu_kernel.is_some() { &cpu_options } else { options })?;
    let reference = CpuOptions { exact: true, ..CpuOptions::default() };
    let gpu = Gpu::new(&GpuOptions {
        exact: options.exact,
        kernel: gpu_kernel,
        progress: options.upload.as_ref().map(|upload| upload.0.clone()),
        reference: Some(Arc::new(Cpu::new(reference)?)),
        cache: cache::folder(),
        tune: Tune::Hardware,
        ..GpuOptions::new(blocks)
    })?;
    Ok((gpu, cpu))
}

/// The device `auto` stands for: a real graphics device if it reads memory faster than the processor, which is what decides the
/// speed of generation. A software adapter is the processor itself, without its SIMD kernels.
fn auto(options: &SessionOptions) -> Result<Opened> {
    let adapters = if shaders::hardware_present() { shaders::adapters() } else { Vec::new() };
    let best = adapters.into_iter().next();
    let real = best.filter(|info| info.refused.is_none() && info.kind != AdapterKind::Software);
    let Some(info) = real else {
        tracing::info!(
            "no graphics adapter of hardware that can be used; running on the SIMD kernels of the processor"
        );
        return Opened::on_cpu(options);
    };
    let (gpu, cpu) = match gpu(options) {
        Ok(both) => both,
        Err(error) => {
            tracing::warn!("{error}; running on the processor");
            return Opened::on_cpu(options);
        }
    };
    let probe = || Ok::<_, Error>([gpu.read_bytes_per_s()?, cpu.roofs().bytes_per_s]);
    match cache::probes(&format!("{} {}, {} threads", info.name, info.driver, cpu.threads()), probe) {
        Ok([there, here]) => {
            let (there_gb, here_gb) = (there / 1e9, here / 1e9);
            tracing::info!("{} reads {there_gb:.0} GB/s, the processor {here_gb:.0} GB/s", info.name);
            if there > here { Ok(Opened::on_gpu(gpu, cpu, options)) } else { Opened::on_cpu(options) }
        }
        Err(error) => {
            tracing::warn!("{error}; running on the processor");
            Opened::on_cpu(options)
        }
    }
}

/// Opens the device the options ask for.
pub(crate) fn open(options: &SessionOptions) -> Result<Opened> {
    match options.device {
        // A kernel or an instruction set of the processor is a choice of the processor.
        Device::Auto if options.kernel.is_none() && options.isa.is_none() => auto(options),
        Device::Auto | Device::Cpu => Opened::on_cpu(options),
        Device::Gpu => {
            let (gpu, cpu) = gpu(options)?;
            Ok(Opened::on_gpu(gpu, cpu, options))
        }
        Device::Oracle => {
            let oracle = Oracle::default();
            let oracle = Oracle { threads: options.threads.unwrap_or(oracle.threads) };
            Ok(Opened { backend: Box::new(oracle), gpu: None })
        }
    }
}
