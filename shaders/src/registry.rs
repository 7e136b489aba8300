//! The kernel table of the GPU, shaped like that of `cchaha-kernels`: the first row that fits an op, a format and a number of
//! rows wins, and the same rows drive dispatch, conformance tests, self-test and `cchaha-run kernels`. How weights lie is
//! a table of its own ([`crate::LAYOUTS`]): a matrix kernel works on every layout.

use cchaha_plan::Format;

/// What a kernel binds beside the arena, the vectors and the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Binds {
    /// Nothing.
    Nothing,
    /// One weight buffer.
    Weights,
    /// Keys and values of a layer.
    Cache,
}

/// Features of a device that a kernel cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing beyond compute shaders with immediates.
    Nothing,
    /// Subgroup operations.
    Subgroups,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// `wgsl-{types}-{variant}`.
    pub name: &'static str,
    /// Which op, as [`cchaha_plan::Op::name`] spells it; fusions have their own names.
    pub op: &'static str,
    /// Formats of the weight it accepts; empty for ops without a quantizable weight.
    pub formats: &'static [Format],
    /// What the device must have.
    pub needs: Needs,
    /// The most rows (tokens) it is meant for; it computes any number.
    pub most_rows: usize,
    pub(crate) module: &'static str,
    pub(crate) binds: Binds,
    /// Counts the composer unrolls by.
    pub(crate) counts: &'static [(&'static str, u32)],
    /// Module that adds up the lanes of a row, where it has lanes.
    pub(crate) reduce: &'static str,
    /// Module that says what values of a weight are multiplied as.
    pub(crate) values: &'static str,
}

impl Kernel {
    /// Whether it rounds activations, to 16 bits for every 256 values, before it multiplies.
    pub fn rounds(&self) -> bool {
        self.values == PACKED
    }

    /// Whether it can compute `op` on a weight of this format.
    pub fn accepts(&self, op: &str, format: Option<Format>) -> bool {
        self.op == op
            && match format {
                Some(format) => self.formats.contains(&format),
                None => self.formats.is_empty(),
            }
    }
}

const fn row(name: &'static str, op: &'static str, module: &'static str, binds: Binds) -> Kernel {
    let formats = if matches!(binds, Binds::Weights) { Format::ALL } else { &[] };
    Kernel {
        name,
        op,
        formats,
        needs: Needs::Nothing,
        most_rows: usize::MAX,
        module,
        binds,
        counts: &[],
        reduce: LANES,
        values: FLOATS,
    }
}

const fn matrix(
    name: &'static str,
    op: &'static str,
    module: &'static str,
    most_rows: usize,
    counts: &'static [(&'static str, u32)],
) -> Kernel {
    let binds = Binds::Weights;
    Kernel {
        name,
        op,
        formats: Format::ALL,
        needs: Needs::Nothing,
        most_rows,
        module,
        binds,
        counts,
        reduce: LANES,
        values: FLOATS,
    }
}

/// The same with products of integers, for weights that are small ones. Whether they are faster depends on the device: they stand
/// last, for the choice by time.
const fn packed(name: &'static str, like: Kernel) -> Kernel {
    Kernel { name, formats: INTEGERS, values: PACKED, ..like }
}

/// Formats whose values are bytes with a scale and an offset, and no codebook.
const INTEGERS: &[Format] = &[
    Format::Q4_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::Q8_0,
    Format::Q2_K,
    Format::Q3_K,
    Format::Q4_K,
    Format::Q5_K,
    Format::Q6_K,
];

/// The same with sums by subgroup shuffles.
const fn shuffled(name: &'static str, like: Kernel) -> Kernel {
    Kernel { name, needs: Needs::Subgroups, reduce: "lib/lanes_subgroup", ..like }
}

/// The attention kernel whose workgroups take many tokens of one head, instead of a token of several.
pub(crate) const TILED: &str = "ops/attend_tiled";

const LANES: &str = "lib/lanes";
const FLOATS: &str = "lib/floats";
pub(crate) const PACKED: &str = "lib/packed";
const GEMV1: Kernel = matrix("wgsl-f32-gemv1", "MatMul", "ops/gemv", 1, &[("COLUMNS", 1)]);
const GEMV4: Kernel = matrix("wgsl-f32-gemv4", "MatMul", "ops/gemv", 8, &[("COLUMNS", 4)]);
const GATED1: Kernel = matrix("wgsl-f32-gated1", "GatedMatMul", "ops/gated", 1, &[("COLUMNS", 1)]);
const GATED4: Kernel = matrix("wgsl-f32-gated4", "GatedMatMul", "ops/gated", 8, &[("COLUMNS", 4)]);

const KERNELS: &[Kernel] = &[
    shuffled("wgsl-f32-gemv1-subgroup", GEMV1),
    shuffled("wgsl-f32-gemv4-subgroup", GEMV4),
    GEMV1,
    GEMV4,
    matrix("wgsl-f32-gemm", "MatMul", "ops/gemm", usize::MAX, &[]),
    shuffled("wgsl-f32-gated1-subgroup", GATED1),
    shuffled("wgsl-f32-gated4-subgroup", GATED4),
    GATED1,
    GATED4,
    row("wgsl-f32-experts", "Experts", "ops/expert_gemv", Binds::Weights),
    row("wgsl-f32-expertsum", "ExpertSum", "ops/expert_sum", Binds::Nothing),
    row("wgsl-f32-embed", "Embed", "ops/embed", Binds::Weights),
    row("wgsl-f32-norm", "Norm", "ops/norm", Binds::Nothing),
    row("wgsl-f32-rope", "Rope", "ops/rope", Binds::Nothing),
    row("wgsl-f32-heads", "Heads", "ops/heads", Binds::Cache),
    row("wgsl-f32-kvstore", "KvStore", "ops/kv_store", Binds::Cache),
    row("wgsl-f32-selectpages", "SelectPages", "ops/select_pages", Binds::Cache),
    Kernel { most_rows: 8, ..row("wgsl-f32-attend", "Attend", "ops/attend", Binds::Cache) },
    row("wgsl-f32-attend-tiled", "Attend", TILED, Binds::Cache),
    row("wgsl-f32-attendmerge", "AttendMerge", "ops/attend_merge", Binds::Nothing),
    row("wgsl-f32-elementwise", "Elementwise", "ops/elementwise", Binds::Nothing),
    row("wgsl-f32-takerows", "TakeRows", "ops/take_rows", Binds::Nothing),
    row("wgsl-f32-argmax", "ArgMax", "ops/arg_max", Binds::Nothing),
    row("wgsl-f32-topk", "TopK", "ops/top_k", Binds::Nothing),
    row("wgsl-f32-quantize", "Quantize", "ops/quantize", Binds::Nothing),
    packed("wgsl-dot-gemv1-subgroup", shuffled("", GEMV1)),
    packed("wgsl-dot-gemv4-subgroup", shuffled("", GEMV4)),
    packed("wgsl-dot-gemv1", GEMV1),
    packed("wgsl-dot-gemv4", GEMV4),
    packed("wgsl-dot-gated1-subgroup", shuffled("", GATED1)),
    packed("wgsl-dot-gated4-subgroup", shuffled("", GATED4)),
    packed("wgsl-dot-gated1", GATED1),
    packed("wgsl-dot-gated4", GATED4),
];

/// Every kernel, in order of preference.
pub fn registry() -> &'static [Kernel] {
    KERNELS
}
