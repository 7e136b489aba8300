//! The CPU back end: options, kernel choice, allocation.

mod attention;
mod experts;
mod matrix;
mod packed;
mod rotary;
mod runner;

use std::sync::Arc;

use cchaha_plan::{Backend, Error, ErrorKind, FORMATS, Footprint, Format, Limits, Plan, Result, Runner};

use crate::isa::Isa;
use crate::pool::{Pool, physical_cores};
use crate::registry::{self, Kernel, Run, registry};
use crate::roofs::Roofs;

/// How a [`Cpu`] works.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuOptions<'a> {
    /// Threads; physical cores where `None`.
    pub threads: Option<usize>,
    /// f32 activations and f32 KV instead of 16 bits each.
    pub exact: bool,
    /// Use no instructions beyond these; all the machine has where `None`.
    pub isa: Option<Isa>,
    /// Prefer this row of [`registry`] wherever it accepts the op and format.
    pub kernel: Option<&'a str>,
    /// Bytes of weights a runner may hold packed for decoding, which takes their place in the mapped file; none where they are more.
    pub pack: usize,
}

/// The back end on SIMD kernels. Threads live as long as it or any of its runners.
#[derive(Clone, Debug)]
pub struct Cpu {
    pool: Arc<Pool>,
    exact: bool,
    isa: Isa,
    preferred: Option<&'static Kernel>,
    picked: Picked,
    pack: usize,
}

/// The functions this machine and these options lead to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Picked {
    /// By format.
    pub(crate) matmul: [registry::MatMul; FORMATS.len()],
    pub(crate) norm: registry::Norm,
    pub(crate) activate: registry::Activate,
    pub(crate) add: registry::Add,
    pub(crate) scale: registry::ByFactor,
    pub(crate) softcap: registry::ByFactor,
    pub(crate) rope: registry::Rope,
    pub(crate) attend: registry::Attend,
    pub(crate) select: registry::Select,
}

/// The function of the first row that fits; every op has a portable row, as the registry's tests check.
macro_rules! pick {
    ($choice:expr, $op:ident) => {
        pick!($choice, $op, None)
    };
    ($choice:expr, $op:ident, $format:expr) => {
        match $choice.kernel(stringify!($op), $format).map(|kernel| kernel.run) {
            Some(Run::$op(run)) => run,
            _ => return Err(Error::unsupported(concat!("no kernel computes ", stringify!($op)))),
        }
    };
}

struct Choice {
    exact: bool,
    isa: Isa,
    preferred: Option<&'static Kernel>,
}

impl Choice {
    fn kernel(&self, op: &str, format: Option<Format>) -> Option<&'static Kernel> {
        // Activations are quantized once for all the weights they meet.
        let layout = self.preferred.and_then(Kernel::layout);
        let fits = |row: &&Kernel| {
            row.accepts(op, format)
                && (layout.is_none() || row.layout().is_none() || row.layout() == layout)
                && row.isa <= self.isa
                && row.isa.available()
                && (row.exact || !self.exact)
        };
        self.preferred.into_iter().chain(registry()).find(fits)
    }

    fn pick(&self) -> Result<Picked> {
        let mut matmul = [pick!(self, MatMul, Some(Format::F32)); FORMATS.len()];
        for row in &FORMATS {
            matmul[row.format as usize] = pick!(self, MatMul, Some(row.format));
        }
        Ok(Picked {
            matmul,
            norm: pick!(self, Norm),
            activate: pick!(self, Activate),
            add: pick!(self, Add),
            scale: pick!(self, Scale),
            softcap: pick!(self, Softcap),
            rope: pick!(self, Rope),
            attend: pick!(self, Attend),
            select: pick!(self, SelectPages),
        })
    }
}

impl Cpu {
    /// Picks kernels and starts the threads.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for zero threads, instructions this machine lacks and unknown kernels.
    pub fn new(options: CpuOptions<'_>) -> Result<Cpu> {
        let threads = options.threads.unwrap_or_else(physical_cores);
        if !(1..=1024).contains(&threads) {
            return Err(Error::usage(format!("{threads} threads: give 1 to 1024")));
        }
        let isa = options.isa.unwrap_or_else(Isa::best);
        if !isa.available() {
            return Err(Error::usage(format!("this machine has no {isa}; its best is {}", Isa::best())));
        }
        let preferred = options.kernel.map(|name| named(name, isa, options.exact)).transpose()?;
        let picked = Choice { exact: options.exact, isa, preferred }.pick()?;
        let pool = Pool::new(threads).map_err(|error| {
            Error::new(ErrorKind::Device, format!("the system refused {threads} threads: {error}"))
        })?;
        Ok(Cpu { pool: Arc::new(pool), exact: options.exact, isa, preferred, picked, pack: options.pack })
    }

    /// The row of [`registry`] this back end uses for an op (as [`cchaha_plan::Op::name`] spells it) on weights of this
    /// format. Products inside GatedMatMul and Experts are those of MatMul.
    pub fn kernel(&self, op: &str, format: Option<Format>) -> Option<&'static Kernel> {
        Choice { exact: self.exact, isa: self.isa, preferred: self.preferred }.kernel(op, format)
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Measures how fast its threads read memory and multiply at best, whatever kernels they are held to.
    pub fn roofs(&self) -> Roofs {
        Roofs::measure(&self.pool)
    }

    /// The best instructions it uses.
    pub fn isa(&self) -> Isa {
        self.isa
    }
}

fn named(name: &str, isa: Isa, exact: bool) -> Result<&'static Kernel> {
    let row = registry().iter().find(|row| row.name == name);
    let row =
        row.ok_or_else(|| Error::usage(format!("no kernel is called {name:?}; see `cchaha-run kernels`")))?;
    if row.isa > isa || !row.isa.available() {
        return Err(Error::usage(format!("kernel {name} needs {}, this run has {isa}", row.isa)));
    }
    if exact && !row.exact {
        return Err(Error::usage(format!(
            "kernel {name} rounds activations, which exact arithmetic excludes"
        )));
    }
    Ok(row)
}

impl Backend for Cpu {
    fn name(&self) -> String {
        let plural = if self.threads() == 1 { "" } else { "s" };
        let exact = if self.exact { ", exact" } else { "" };
        format!("cpu ({}, {} thread{plural}{exact})", self.isa, self.threads())
    }

    fn footprint(&self, plan: &Plan, limits: &Limits) -> Footprint {
        runner::Sizes::of(plan, limits, self.exact).footprint(plan, self.threads())
    }

    fn prepare(&self, plan: Arc<Plan>, limits: Limits) -> Result<Box<dyn Runner>> {
        plan.validate()?;
        if limits.cells == 0 || limits.batch == 0 || limits.logits == 0 {
            return Err(Error::usage("cells, batch and logits rows must not be zero"));
        }
        let (exact, picked, pool) = (self.exact, self.picked, self.pool.clone());
        Ok(Box::new(runner::CpuRunner::new(plan, limits, exact, picked, pool, self.pack)?))
    }
}
