//! The kernel table of the GPU, shaped like that of `cchaha-kernels`: the first row that fits an op, a format and a number of
//! rows wins, and the same rows drive dispatch, conformance tests, self-test and `cchaha-run kernels`. How weights lie is
//! a table of its own ([`crate::LAYOUTS`]): a matrix kernel works on every layout.

use cchaha_plan::Format;

use crate::device::{AdapterInfo, INVOCATIONS, WORKGROUP_BYTES};

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
    /// Arithmetic of half floats.
    Halves,
    /// Products of square matrices of so many rows that a subgroup holds together, of half floats with f32 sums.
    CooperativeMatrix(u32),
}

impl Needs {
    /// As [`AdapterInfo::features`] calls it.
    pub fn feature(self) -> Option<&'static str> {
        match self {
            Needs::Nothing => None,
            Needs::Subgroups => Some("subgroups"),
            Needs::Halves => Some("f16"),
            Needs::CooperativeMatrix(8) => Some(COOPERATIVE_8),
            Needs::CooperativeMatrix(_) => Some(COOPERATIVE_16),
        }
    }
}

/// Names of features that are configurations.
pub(crate) const COOPERATIVE_8: &str = "8x8 cooperative matrix";
pub(crate) const COOPERATIVE_16: &str = "16x16 cooperative matrix";

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
    /// Bytes of workgroup memory it may take.
    pub workgroup_bytes: u32,
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
    /// Module that multiplies matrices a subgroup holds together.
    pub(crate) tiles: &'static str,
}

impl Kernel {
    /// What an adapter is missing to run it, if anything.
    pub fn lacks(&self, adapter: &AdapterInfo) -> Option<String> {
        let feature = self.needs.feature().filter(|feature| !adapter.features.contains(feature));
        let memory = (self.workgroup_bytes > adapter.workgroup_bytes)
            .then(|| format!("{} bytes of workgroup memory", self.workgroup_bytes));
        feature.map(str::to_owned).or(memory)
    }

    /// Whether it multiplies half floats, each a weight or an activation rounded to 11 bits. Such a row is chosen by time or by name only.
    pub fn narrows(&self) -> bool {
        matches!(self.module, GEMM_F16 | GEMM_COOP)
    }

    /// Rows and tokens of the tile of results a workgroup computes, for kernels with such tiles.
    pub(crate) fn tile(&self) -> [usize; 2] {
        [ROWS64, TOKENS64].map(|name| 64 * self.count(name).unwrap_or(1) as usize)
    }

    /// Invocations of a workgroup, for kernels that take it as a constant: every subgroup has a block of 32 x 32 of the tile.
    pub(crate) fn width(&self, smallest_subgroup: u32) -> Option<usize> {
        let [rows, tokens] = self.tile();
        let width = rows / 32 * tokens / 32 * smallest_subgroup as usize;
        (self.module == GEMM_COOP).then(|| width.min(INVOCATIONS as usize))
    }

    fn count(&self, name: &str) -> Option<u32> {
        self.counts.iter().find(|(known, _)| *known == name).map(|&(_, count)| count)
    }

    /// Whether it multiplies activations rounded to 16 bits, with a scale for every 32 of them.
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
        workgroup_bytes: WORKGROUP_BYTES,
        most_rows: usize::MAX,
        module,
        binds,
        counts: &[],
        reduce: LANES,
        values: FLOATS,
        tiles: "",
    }
}

const fn matrix(
    name: &'static str,
    op: &'static str,
    module: &'static str,
    most_rows: usize,
    counts: &'static [(&'static str, u32)],
) -> Kernel {
    Kernel { most_rows, counts, ..row(name, op, module, Binds::Weights) }
}

/// A matrix-matrix kernel with tiles of so many times 64 rows and 64 tokens.
const fn tiled(
    name: &'static str,
    module: &'static str,
    needs: Needs,
    workgroup_bytes: u32,
    counts: &'static [(&'static str, u32)],
) -> Kernel {
    Kernel { needs, workgroup_bytes, ..matrix(name, "MatMul", module, usize::MAX, counts) }
}

/// One on cooperative matrices of 32 / `across` rows.
const fn cooperative(name: &'static str, needs: Needs, tiles: &'static str, across: u32) -> Kernel {
    let counts: &[_] = match across {
        2 => &[(ROWS64, 2), (TOKENS64, 1), ("ACROSS", 2)],
        _ => &[(ROWS64, 2), (TOKENS64, 1), ("ACROSS", 4)],
    };
    Kernel { tiles, ..tiled(name, GEMM_COOP, needs, 32 << 10, counts) }
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

const GEMM: &str = "ops/gemm";
const GEMM_F16: &str = "ops/gemm_f16";
const GEMM_COOP: &str = "ops/gemm_coop";
const ROWS64: &str = "ROWS64";
const TOKENS64: &str = "TOKENS64";
const TILE_64: &[(&str, u32)] = &[(ROWS64, 1), (TOKENS64, 1)];
const TILE_128: &[(&str, u32)] = &[(ROWS64, 2), (TOKENS64, 2)];

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
    tiled("wgsl-f32-gemm", GEMM, Needs::Nothing, WORKGROUP_BYTES, TILE_64),
    tiled("wgsl-f32-gemm128", GEMM, Needs::Nothing, 32 << 10, TILE_128),
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
    row("wgsl-f32-querystore", "QueryStore", "ops/query_store", Binds::Nothing),
    row("wgsl-f32-fold", "Fold", "ops/fold", Binds::Cache),
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
    tiled("wgsl-f16-gemm", GEMM_F16, Needs::Halves, WORKGROUP_BYTES, TILE_64),
    tiled("wgsl-f16-gemm128", GEMM_F16, Needs::Halves, 17 << 10, TILE_128),
    cooperative("wgsl-f16-coop16", Needs::CooperativeMatrix(16), "lib/coop16", 2),
    cooperative("wgsl-f16-coop8", Needs::CooperativeMatrix(8), "lib/coop8", 4),
];

/// The cooperative rows in plain WGSL.
const PLAIN: &[Kernel] = &[
    cooperative("wgsl-f16-coop16-plain", Needs::Halves, "lib/coop_plain", 2),
    cooperative("wgsl-f16-coop8-plain", Needs::Halves, "lib/coop_plain", 4),
];

/// Every kernel, in order of preference.
pub fn registry() -> &'static [Kernel] {
    KERNELS
}

/// Rows that need instructions few devices have, with plain WGSL in their place: for tests, and slow. They can be asked for by name
/// and are never chosen otherwise.
pub fn plain() -> &'static [Kernel] {
    PLAIN
}
