//! What is tested: every row of the kernel registry that this machine can run.

use std::sync::Arc;

use cchaha_kernels::{Cpu, CpuOptions, Isa, Kernel, Oracle, registry};
use cchaha_plan::{Backend, Batch, BufferId, Footprint, Format, Limits, Plan, Result, Runner};

use crate::bound::{Rounding, Steps};

/// A back end that prefers one row of the registry.
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) backend: Box<dyn Backend>,
    /// Formats to give it.
    pub(crate) formats: &'static [Format],
    /// What it may do to the operands of products.
    pub(crate) rounding: Rounding,
    /// Whether its KV cache holds half floats.
    pub(crate) half_kv: bool,
    /// Of the large suites, it runs one case in so many.
    pub(crate) one_in: usize,
}

/// Ops these tests exercise; the products inside the last two are rows of MatMul.
const TESTED: [&str; 16] = [
    "Activate",
    "Add",
    "Attend",
    "Embed",
    "KvStore",
    "MatMul",
    "Norm",
    "QueryStore",
    "Rope",
    "Scale",
    "SelectPages",
    "Softcap",
    "TakeRows",
    "TopK",
    "GatedMatMul",
    "Experts",
];

pub(crate) fn oracle() -> Oracle {
    Oracle { threads: 1 }
}

fn options(kernel: &'static Kernel, exact: bool) -> CpuOptions<'static> {
    CpuOptions { threads: Some(2), exact, isa: Some(kernel.isa), kernel: Some(kernel.name), pack: 0 }
}

/// Every row for an op, with the cache in half floats and, where the op sees it, in f32.
pub(crate) fn subjects(op: &str) -> Vec<Subject> {
    assert!(TESTED.contains(&op), "{op} is missing in the list of tested ops");
    let row_op = if matches!(op, "GatedMatMul" | "Experts") { "MatMul" } else { op };
    let sees_cache = matches!(op, "Attend" | "KvStore" | "QueryStore" | "SelectPages");
    let mut subjects = Vec::new();
    for kernel in registry().iter().filter(|kernel| kernel.op == row_op && kernel.isa.available()) {
        for exact in [false, true] {
            if exact && !(sees_cache && kernel.exact) {
                continue;
            }
            subjects.push(Subject {
                name: format!("{}{}", kernel.name, if exact { " (exact)" } else { "" }),
                backend: Box::new(Cpu::new(options(kernel, exact)).expect("the row is available")),
                formats: kernel.formats,
                rounding: if kernel.exact { Rounding::None } else { Rounding::Steps(Steps::FINE) },
                half_kv: !exact,
                one_in: 1,
            });
        }
    }
    for kernel in registry().iter().filter(|kernel| kernel.op == row_op && kernel.reads_coarsely()) {
        let Ok(cpu) = Cpu::new(options(kernel, false)) else { continue };
        subjects.push(Subject {
            name: format!("{} (coarse)", kernel.name),
            backend: Box::new(Reading(Box::new(cpu))),
            formats: kernel.formats,
            rounding: Rounding::Steps(Steps::COARSE),
            half_kv: true,
            one_in: 1,
        });
    }
    subjects.extend(crate::gpu::subjects(op));
    assert!(!subjects.is_empty(), "no row computes {op}");
    if let Some(wanted) = wanted_rows() {
        subjects.retain(|subject| subject.name.contains(&wanted));
        subjects.iter_mut().for_each(|subject| subject.one_in = 1);
    }
    let fewer = fewer_cases();
    subjects.iter_mut().for_each(|subject| subject.one_in *= fewer);
    subjects
}

/// A back end all of whose tokens are coarse.
struct Reading<T: ?Sized>(Box<T>);

impl Backend for Reading<Cpu> {
    fn name(&self) -> String {
        self.0.name()
    }

    fn footprint(&self, plan: &Plan, limits: &Limits) -> Footprint {
        self.0.footprint(plan, limits)
    }

    fn prepare(&self, plan: Arc<Plan>, limits: Limits) -> Result<Box<dyn Runner>> {
        Ok(Box::new(Reading(self.0.prepare(plan, limits)?)))
    }
}

impl Runner for Reading<dyn Runner> {
    fn run(&mut self, batch: &Batch<'_>) -> Result<&[f32]> {
        self.0.run(&Batch { coarse: &vec![true; batch.tokens.len()], ..*batch })
    }

    fn fill(&mut self, buffer: BufferId, rows: &[f32]) -> Result<()> {
        self.0.fill(buffer, rows)
    }
}

/// `CCHAHA_ONE_IN=N`: the large suites run about one case in N.
pub(crate) fn fewer_cases() -> usize {
    match std::env::var("CCHAHA_ONE_IN") {
        Ok(n) => n.parse().ok().filter(|&n| n > 0).expect("CCHAHA_ONE_IN is a whole number above 0"),
        Err(_) => 1,
    }
}

/// `CCHAHA_ROWS=NAME`: only rows whose name contains it, and every case of theirs.
fn wanted_rows() -> Option<String> {
    std::env::var("CCHAHA_ROWS").ok().filter(|name| !name.is_empty())
}

/// A whole back end, as it picks its rows by itself, for a number of threads.
pub(crate) struct Whole {
    pub(crate) name: String,
    pub(crate) make: Box<dyn Fn(usize) -> Box<dyn Backend>>,
}

/// The CPU with every instruction set, exact and not.
pub(crate) fn whole_backends() -> Vec<Whole> {
    let mut rows = Vec::new();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        for exact in [false, true] {
            let options = move |threads| CpuOptions {
                threads: Some(threads),
                exact,
                isa: Some(isa),
                kernel: None,
                pack: 0,
            };
            rows.push(Whole {
                name: format!("cpu {isa}{}", if exact { " exact" } else { "" }),
                make: Box::new(move |threads| Box::new(Cpu::new(options(threads)).expect("available"))),
            });
        }
    }
    rows
}

/// The largest share of the tolerance each row used; printed at the end (`--nocapture` shows it).
pub(crate) struct Ratios {
    op: &'static str,
    worst: Vec<(String, f64)>,
}

impl Ratios {
    pub(crate) fn new(op: &'static str) -> Ratios {
        Ratios { op, worst: Vec::new() }
    }

    pub(crate) fn note(&mut self, subject: &Subject, ratio: f64) {
        match self.worst.iter_mut().find(|(name, _)| *name == subject.name) {
            Some((_, worst)) => *worst = worst.max(ratio),
            None => self.worst.push((subject.name.clone(), ratio)),
        }
    }
}

impl Drop for Ratios {
    fn drop(&mut self) {
        for (name, worst) in &self.worst {
            eprintln!("{:12} {name:32} error / tolerance <= {worst:.3}", self.op);
        }
    }
}

#[test]
fn every_row_of_the_registry_is_tested() {
    for kernel in registry() {
        assert!(
            TESTED.contains(&kernel.op),
            "{} computes {}, which no test exercises",
            kernel.name,
            kernel.op
        );
        if !kernel.isa.available() {
            eprintln!("{}: this machine has no {}", kernel.name, kernel.isa);
            continue;
        }
        // The preference is heard: for its formats the back end picks the row.
        let cpu = Cpu::new(options(kernel, false)).unwrap();
        let formats: Vec<Option<Format>> = match kernel.formats {
            [] => vec![None],
            formats => formats.iter().copied().map(Some).collect(),
        };
        for format in formats {
            assert_eq!(cpu.kernel(kernel.op, format).map(|row| row.name), Some(kernel.name));
        }
    }
}
