//! The GPU's rows as subjects, with and without the checks that naga puts into shaders.

use std::sync::OnceLock;

use cchaha_kernels::formats;
use cchaha_plan::{ErrorKind, FORMATS, Format};
use cchaha_shaders::{Blocks, Gpu, GpuOptions, Kernel, LAYOUTS, Layout, plain, registry};

use crate::bound::{Rounding, Steps};
use crate::subjects::Subject;

/// Rows of the GPU's table that take part in an op.
const ROWS: [(&str, &[&str]); 16] = [
    ("Activate", &["Elementwise"]),
    ("Add", &["Elementwise"]),
    ("Attend", &["Attend"]),
    ("Embed", &["Embed"]),
    ("KvStore", &["KvStore", "Heads"]),
    ("MatMul", &["MatMul"]),
    ("Norm", &["Norm"]),
    ("QueryStore", &["QueryStore", "Fold"]),
    ("Rope", &["Rope"]),
    ("Scale", &["Elementwise"]),
    ("SelectPages", &["SelectPages"]),
    ("Softcap", &["Elementwise"]),
    ("TakeRows", &["TakeRows"]),
    ("TopK", &["TopK"]),
    ("GatedMatMul", &["GatedMatMul"]),
    ("Experts", &["Experts", "ExpertSum"]),
];

/// Formats that stand for all.
const FEW: &[Format] = &[Format::F16, Format::Q4_K];

/// A software adapter takes a hundred times as long as the CPU's kernels.
const ONE_IN: usize = 6;

pub(crate) fn blocks(format: Format) -> Option<Blocks> {
    formats::ops(format).blocks.map(|blocks| Blocks { sub: blocks.sub, unpack: blocks.unpack })
}

/// The GPU of this machine with shaders in both forms, opened once so that pipelines are made once. `None` where there is none and
/// `CCHAHA_REQUIRE_GPU` does not ask for one.
pub(crate) fn gpus() -> Option<&'static [Gpu; 2]> {
    static GPUS: OnceLock<Option<[Gpu; 2]>> = OnceLock::new();
    GPUS.get_or_init(own_gpus).as_ref()
}

/// The same, opened for one test: its counters count nobody else's work.
pub(crate) fn own_gpus() -> Option<[Gpu; 2]> {
    let open = |checked| Gpu::new(&GpuOptions { checked, ..GpuOptions::new(blocks) });
    match (open(false), open(true)) {
        (Ok(unchecked), Ok(checked)) => Some([unchecked, checked]),
        (Err(error), _) | (_, Err(error)) => {
            assert_eq!(error.kind, ErrorKind::Device, "{error}");
            assert!(std::env::var_os("CCHAHA_REQUIRE_GPU").is_none_or(|value| value.is_empty()), "{error}");
            eprintln!("not tested: the GPU's kernels ({error})");
            None
        }
    }
}

/// Every row of the GPU's table for an op, and for products every layout.
pub(crate) fn subjects(op: &str) -> Vec<Subject> {
    let Some(gpus) = gpus() else { return Vec::new() };
    let (_, rows) =
        ROWS.iter().find(|(name, _)| *name == op).unwrap_or_else(|| panic!("{op}: no GPU row computes it"));
    let sees_cache = matches!(op, "Attend" | "KvStore" | "QueryStore" | "SelectPages");
    let mut subjects = Vec::new();
    for gpu in gpus {
        let form = if gpu.checked() { "checked" } else { "unchecked" };
        let mut add = |name: &str, formats: &'static [Format], exact: bool, rounding: Rounding| {
            let gpu = gpu.with(name, exact).expect("the row is available");
            let exact = if exact { ", exact" } else { "" };
            subjects.push(Subject {
                name: format!("{name} ({form}{exact})"),
                half_kv: exact.is_empty(),
                backend: Box::new(gpu),
                formats,
                rounding,
                one_in: ONE_IN,
            });
        };
        for kernel in registry().iter().chain(plain()).filter(|kernel| rows.contains(&kernel.op)) {
            if let Some(what) = kernel.lacks(gpu.adapter()) {
                eprintln!("{}: {} has no {what}", kernel.name, gpu.adapter().name);
                continue;
            }
            // The driver takes a second for each pipeline of these: the same text as other rows' with larger numbers, and the twins of
            // rows that cannot run here.
            let twin = plain().iter().any(|row| row.name == kernel.name);
            if twin && gpu.checked() {
                continue;
            }
            let few = twin || gpu.checked() && kernel.name.ends_with("gemm128");
            let formats = if few { FEW } else { kernel.formats };
            // The two forms of the cache and the two forms of shaders in two subjects.
            add(kernel.name, formats, sees_cache && gpu.checked(), rounding(kernel));
        }
        if matches!(op, "MatMul" | "Embed") && !gpu.checked() {
            // Layouts that are not the first choice for some format.
            for layout in LAYOUTS.iter().filter(|layout| first_choice(layout).is_none()) {
                add(layout.name, layout.formats, false, Rounding::None);
            }
        }
    }
    subjects
}

/// What a row may do to operands. Those on cooperative matrices, and their twins in plain WGSL, add up in f32.
fn rounding(kernel: &Kernel) -> Rounding {
    match kernel.rounds() {
        true => Rounding::Steps(Steps::FINE),
        false if kernel.narrows() => Rounding::Halves { sums: !kernel.name.contains("coop") },
        false => Rounding::None,
    }
}

/// A format that this layout holds where nothing else is asked for.
fn first_choice(layout: &Layout) -> Option<Format> {
    let first = |format: Format| LAYOUTS.iter().find(|layout| layout.formats.contains(&format));
    let mine = |format: &Format| first(*format).is_some_and(|first| first.name == layout.name);
    FORMATS.iter().map(|row| row.format).find(mine)
}

#[test]
fn every_row_of_the_gpu_is_tested() {
    // Parts of attention are merged only where there are few tokens and many cells, and the largest logit is only chosen in
    // greedy steps: tests/gpu.rs does that. Activations are rounded before the products of every row that rounds.
    let elsewhere = ["AttendMerge", "ArgMax", "Quantize"];
    for kernel in registry().iter().filter(|kernel| !elsewhere.contains(&kernel.op)) {
        assert!(
            ROWS.iter().any(|(_, rows)| rows.contains(&kernel.op)),
            "{} computes {}, which no test exercises",
            kernel.name,
            kernel.op
        );
    }
}
