//! Which back end runs a session.

use cchaha_kernels::{Cpu, CpuOptions, Isa, Oracle};
use cchaha_plan::Backend;

use crate::error::{Error, ErrorKind, Result};
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

fn cpu(options: &SessionOptions) -> Result<Cpu> {
    let isa = options.isa.as_deref().map(isa).transpose()?;
    let kernel = options.kernel.as_deref();
    Ok(Cpu::new(CpuOptions { threads: options.threads, exact: options.exact, isa, kernel })?)
}

fn isa(name: &str) -> Result<Isa> {
    Isa::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Isa::ALL.iter().map(|isa| isa.name()).collect();
        Error::usage(format!("no instruction set is called {name:?}; choose one of {}", names.join(", ")))
    })
}

/// Opens the device the options ask for.
pub(crate) fn open(options: &SessionOptions) -> Result<Box<dyn Backend>> {
    match options.device {
        Device::Auto | Device::Cpu => Ok(Box::new(cpu(options)?)),
        Device::Gpu => {
            Err(Error::new(ErrorKind::Device, "this version has no GPU back end yet; run with --device cpu"))
        }
        Device::Oracle => {
            let oracle = Oracle::default();
            Ok(Box::new(Oracle { threads: options.threads.unwrap_or(oracle.threads) }))
        }
    }
}
