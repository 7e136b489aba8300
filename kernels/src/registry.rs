//! The kernel table. The first row that fits an op, a format and the machine wins; the same rows drive dispatch, the
//! conformance tests, the benches and `cchaha-run kernels`.
//!
//! A row of op `MatMul` also computes the products inside `GatedMatMul` and `Experts`. Ops whose work is moving rows
//! (Embed, KvStore, QueryStore, TakeRows, TopK) have one portable row each.

use cchaha_plan::{Activation, Format};

#[cfg(target_arch = "aarch64")]
use crate::aarch64::{dotprod, i8mm, neon};
use crate::activations::{Group, Halves, Layout};
use crate::attention::{self, Split, Sums};
use crate::generic::attend::attend;
use crate::generic::elementwise::{Input, activate, add, scale, softcap};
use crate::generic::matmul::product;
use crate::generic::norm::{NormArgs, norm};
use crate::generic::rope::{Angles, rope};
use crate::generic::select::select;
use crate::isa::Isa;
use crate::pool::Tile;
use crate::product::Product;
use crate::scratch::Scratch;
use crate::simd::Portable;
#[cfg(target_arch = "x86_64")]
use crate::x86_64::{avx2, avx512};

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// `{arch}-{types}-{variant}`.
    pub name: &'static str,
    /// Which op, as [`cchaha_plan::Op::name`] spells it.
    pub op: &'static str,
    /// Formats of the weight it accepts; empty for ops without a quantizable weight.
    pub formats: &'static [Format],
    /// Instructions it needs.
    pub isa: Isa,
    /// Computes on f32 activations; rows that do not are never used under [`crate::CpuOptions::exact`].
    pub exact: bool,
    pub(crate) run: Run,
}

impl Kernel {
    /// Whether it can compute `op` on a weight of this format.
    pub fn accepts(&self, op: &str, format: Option<Format>) -> bool {
        self.op == op
            && match format {
                Some(format) => self.formats.contains(&format),
                None => self.formats.is_empty(),
            }
    }

    /// Whether it computes with 8-bit activations for coarse tokens ([`cchaha_plan::Batch::coarse`]).
    pub fn reads_coarsely(&self) -> bool {
        matches!(self.run, Run::MatMul(matmul) if matmul.quantize.is_some_and(|quantize| quantize.coarse.is_some()))
    }

    /// Whether its weights can be packed ([`crate::CpuOptions::pack`]).
    pub fn packs(&self) -> bool {
        matches!(self.run, Run::MatMul(matmul) if matmul.pack.is_some())
    }

    /// How it wants its activations, unless as they are.
    pub(crate) fn layout(&self) -> Option<Layout> {
        match self.run {
            Run::MatMul(matmul) => matmul.quantize.map(|quantize| quantize.layout),
            _ => None,
        }
    }
}

/// How a kernel wants its activations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quantize {
    pub(crate) layout: Layout,
    /// Quantizes one row.
    pub(crate) row: QuantizeRow,
    /// Quantizes one row of a coarse token, where the kernel makes use of that.
    pub(crate) coarse: Option<QuantizeRow>,
}

type QuantizeRow = fn(&[f32], Halves<'_>, &mut [Group]);

/// A matrix kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MatMul {
    /// `None`: reads f32 activations.
    pub(crate) quantize: Option<Quantize>,
    /// Computes one tile.
    pub(crate) product: TileFn,
    /// Where rows read faster packed, what packs them.
    pub(crate) pack: Option<Pack>,
}

/// Packs whole rows of so many columns, from a multiple of 8 on, into as many bytes. One token then reads them faster, with the same bits.
pub(crate) type Pack = fn(&[u8], usize, &mut [u8]);

pub(crate) type Norm = fn(&NormArgs<'_>, Input<'_>, &mut [f32]);
pub(crate) type Activate = fn(Activation, Input<'_>, Option<Input<'_>>, &mut [f32]);
pub(crate) type Add = fn(Input<'_>, Input<'_>, &mut [f32]);
pub(crate) type ByFactor = fn(f32, &mut [f32]);
pub(crate) type Rope = fn(Angles<'_>, usize, &mut [f32]);
/// Chooses so many pages for a token and KV head.
pub(crate) type Select = fn(&attention::Attend<'_>, (usize, usize), usize, &mut Scratch, &mut [u64]);
/// Computes the sums of one split; the floats are [`Scratch::attention`].
pub(crate) type Attend = fn(&attention::Attend<'_>, &Split<'_>, &mut [f32], &mut Sums<'_>);

/// What a row runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Run {
    MatMul(MatMul),
    Norm(Norm),
    Activate(Activate),
    Add(Add),
    Scale(ByFactor),
    Softcap(ByFactor),
    Rope(Rope),
    Attend(Attend),
    SelectPages(Select),
    /// The step itself moves the rows.
    Rows,
}

const fn row(name: &'static str, op: &'static str, isa: Isa, run: Run) -> Kernel {
    Kernel { name, op, formats: &[], isa, exact: true, run }
}

/// Computes one tile of a product.
type TileFn = fn(&Product<'_>, &mut Scratch, &mut Tile<'_, f32>);

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const fn i16_row(name: &'static str, isa: Isa, formats: &'static [Format], product: TileFn) -> Kernel {
    let quantize = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => {
            Quantize { layout: Layout::Bytes, row: avx512::quantize, coarse: Some(avx2::quantize_coarse) }
        }
        #[cfg(target_arch = "x86_64")]
        _ => Quantize { layout: Layout::Words, row: avx2::quantize, coarse: Some(avx2::quantize_coarse) },
        #[cfg(target_arch = "aarch64")]
        _ => Quantize { layout: Layout::Runs, row: dotprod::quantize, coarse: None },
    };
    let run = Run::MatMul(MatMul { quantize: Some(quantize), product, pack: None });
    Kernel { name, op: "MatMul", formats, isa, exact: false, run }
}

/// A row whose weights may be packed.
#[cfg(target_arch = "x86_64")]
const fn packed(row: Kernel, pack: Pack) -> Kernel {
    let Run::MatMul(matmul) = row.run else { panic!("only matrices are packed") };
    Kernel { run: Run::MatMul(MatMul { pack: Some(pack), ..matmul }), ..row }
}

const fn float_row(name: &'static str, isa: Isa, product: TileFn) -> Kernel {
    let run = Run::MatMul(MatMul { quantize: None, product, pack: None });
    Kernel { name, op: "MatMul", formats: Format::ALL, isa, exact: true, run }
}

const fn rows(name: &'static str, op: &'static str, formats: &'static [Format]) -> Kernel {
    Kernel { name, op, formats, isa: Isa::Generic, exact: true, run: Run::Rows }
}

const KERNELS: &[Kernel] = &[
    #[cfg(target_arch = "x86_64")]
    packed(i16_row("avx512-q4_0-i16", Isa::Avx512, &[Format::Q4_0], avx512::q4_0), avx2::pack::q4_0),
    #[cfg(target_arch = "x86_64")]
    packed(i16_row("avx512-q4_1-i16", Isa::Avx512, &[Format::Q4_1], avx512::q4_1), avx2::pack::q4_1),
    #[cfg(target_arch = "x86_64")]
    packed(i16_row("avx512-q5_0-i16", Isa::Avx512, &[Format::Q5_0], avx512::q5_0), avx2::pack::q5_0),
    #[cfg(target_arch = "x86_64")]
    packed(i16_row("avx512-q5_1-i16", Isa::Avx512, &[Format::Q5_1], avx512::q5_1), avx2::pack::q5_1),
    #[cfg(target_arch = "x86_64")]
    i16_row("avx512-q8_0-i16", Isa::Avx512, &[Format::Q8_0], avx512::q8_0),
    #[cfg(target_arch = "x86_64")]
    i16_row("avx512-q2_k-i16", Isa::Avx512, &[Format::Q2_K], avx512::q2_k),
    #[cfg(target_arch = "x86_64")]
    i16_row("avx512-q3_k-i16", Isa::Avx512, &[Format::Q3_K], avx512::q3_k),
    #[cfg(target_arch = "x86_64")]
    packed(i16_row("avx512-q4_k-i16", Isa::Avx512, &[Format::Q4_K], avx512::q4_k), avx2::pack::q4_k),
    #[cfg(target_arch = "x86_64")]
    packed(i16_row("avx512-q5_k-i16", Isa::Avx512, &[Format::Q5_K], avx512::q5_k), avx2::pack::q5_k),
    #[cfg(target_arch = "x86_64")]
    packed(i16_row("avx512-q6_k-i16", Isa::Avx512, &[Format::Q6_K], avx512::q6_k), avx2::pack::q6_k),
    #[cfg(target_arch = "x86_64")]
    i16_row("avx512-iq4_nl-i16", Isa::Avx512, &[Format::IQ4_NL], avx512::iq4_nl),
    #[cfg(target_arch = "x86_64")]
    i16_row("avx512-iq4_xs-i16", Isa::Avx512, &[Format::IQ4_XS], avx512::iq4_xs),
    #[cfg(target_arch = "x86_64")]
    i16_row("avx512-mxfp4-i16", Isa::Avx512, &[Format::MXFP4], avx512::mxfp4),
    #[cfg(target_arch = "x86_64")]
    row("avx512-f32-attend", "Attend", Isa::Avx512, Run::Attend(avx512::attend)),
    #[cfg(target_arch = "x86_64")]
    packed(i16_row("avx2-q4_0-i16", Isa::Avx2, &[Format::Q4_0], avx2::q4_0), avx2::pack::q4_0),
    #[cfg(target_arch = "x86_64")]
    packed(i16_row("avx2-q4_1-i16", Isa::Avx2, &[Format::Q4_1], avx2::q4_1), avx2::pack::q4_1),
    #[cfg(target_arch = "x86_64")]
    packed(i16_row("avx2-q5_0-i16", Isa::Avx2, &[Format::Q5_0], avx2::q5_0), avx2::pack::q5_0),
    #[cfg(target_arch = "x86_64")]
    packed(i16_row("avx2-q5_1-i16", Isa::Avx2, &[Format::Q5_1], avx2::q5_1), avx2::pack::q5_1),
    #[cfg(target_arch = "x86_64")]
    i16_row("avx2-q8_0-i16", Isa::Avx2, &[Format::Q8_0], avx2::q8_0),
    #[cfg(target_arch = "x86_64")]
    i16_row("avx2-q2_k-i16", Isa::Avx2, &[Format::Q2_K], avx2::q2_k),
    #[cfg(target_arch = "x86_64")]
    i16_row("avx2-q3_k-i16", Isa::Avx2, &[Format::Q3_K], avx2::q3_k),
    #[cfg(target_arch = "x86_64")]
    packed(i16_row("avx2-q4_k-i16", Isa::Avx2, &[Format::Q4_K], avx2::q4_k), avx2::pack::q4_k),
    #[cfg(target_arch = "x86_64")]
    packed(i16_row("avx2-q5_k-i16", Isa::Avx2, &[Format::Q5_K], avx2::q5_k), avx2::pack::q5_k),
    #[cfg(target_arch = "x86_64")]
    packed(i16_row("avx2-q6_k-i16", Isa::Avx2, &[Format::Q6_K], avx2::q6_k), avx2::pack::q6_k),
    #[cfg(target_arch = "x86_64")]
    i16_row("avx2-iq4_nl-i16", Isa::Avx2, &[Format::IQ4_NL], avx2::iq4_nl),
    #[cfg(target_arch = "x86_64")]
    i16_row("avx2-iq4_xs-i16", Isa::Avx2, &[Format::IQ4_XS], avx2::iq4_xs),
    #[cfg(target_arch = "x86_64")]
    i16_row("avx2-mxfp4-i16", Isa::Avx2, &[Format::MXFP4], avx2::mxfp4),
    #[cfg(target_arch = "x86_64")]
    float_row("avx2-any-f32", Isa::Avx2, avx2::product),
    #[cfg(target_arch = "x86_64")]
    row("avx2-f32-attend", "Attend", Isa::Avx2, Run::Attend(avx2::attend)),
    #[cfg(target_arch = "x86_64")]
    row("avx2-f32-selectpages", "SelectPages", Isa::Avx2, Run::SelectPages(avx2::select)),
    #[cfg(target_arch = "x86_64")]
    row("avx2-f32-norm", "Norm", Isa::Avx2, Run::Norm(avx2::norm)),
    #[cfg(target_arch = "x86_64")]
    row("avx2-f32-rope", "Rope", Isa::Avx2, Run::Rope(avx2::rope)),
    #[cfg(target_arch = "x86_64")]
    row("avx2-f32-activate", "Activate", Isa::Avx2, Run::Activate(avx2::activate)),
    #[cfg(target_arch = "x86_64")]
    row("avx2-f32-add", "Add", Isa::Avx2, Run::Add(avx2::add)),
    #[cfg(target_arch = "x86_64")]
    row("avx2-f32-scale", "Scale", Isa::Avx2, Run::Scale(avx2::scale)),
    #[cfg(target_arch = "x86_64")]
    row("avx2-f32-softcap", "Softcap", Isa::Avx2, Run::Softcap(avx2::softcap)),
    #[cfg(target_arch = "aarch64")]
    i16_row("i8mm-q4_0-i16", Isa::I8mm, &[Format::Q4_0], i8mm::q4_0),
    #[cfg(target_arch = "aarch64")]
    i16_row("i8mm-q4_1-i16", Isa::I8mm, &[Format::Q4_1], i8mm::q4_1),
    #[cfg(target_arch = "aarch64")]
    i16_row("i8mm-q5_0-i16", Isa::I8mm, &[Format::Q5_0], i8mm::q5_0),
    #[cfg(target_arch = "aarch64")]
    i16_row("i8mm-q5_1-i16", Isa::I8mm, &[Format::Q5_1], i8mm::q5_1),
    #[cfg(target_arch = "aarch64")]
    i16_row("i8mm-q8_0-i16", Isa::I8mm, &[Format::Q8_0], i8mm::q8_0),
    #[cfg(target_arch = "aarch64")]
    i16_row("i8mm-q2_k-i16", Isa::I8mm, &[Format::Q2_K], i8mm::q2_k),
    #[cfg(target_arch = "aarch64")]
    i16_row("i8mm-q3_k-i16", Isa::I8mm, &[Format::Q3_K], i8mm::q3_k),
    #[cfg(target_arch = "aarch64")]
    i16_row("i8mm-q4_k-i16", Isa::I8mm, &[Format::Q4_K], i8mm::q4_k),
    #[cfg(target_arch = "aarch64")]
    i16_row("i8mm-q5_k-i16", Isa::I8mm, &[Format::Q5_K], i8mm::q5_k),
    #[cfg(target_arch = "aarch64")]
    i16_row("i8mm-q6_k-i16", Isa::I8mm, &[Format::Q6_K], i8mm::q6_k),
    #[cfg(target_arch = "aarch64")]
    i16_row("i8mm-iq4_nl-i16", Isa::I8mm, &[Format::IQ4_NL], i8mm::iq4_nl),
    #[cfg(target_arch = "aarch64")]
    i16_row("i8mm-iq4_xs-i16", Isa::I8mm, &[Format::IQ4_XS], i8mm::iq4_xs),
    #[cfg(target_arch = "aarch64")]
    i16_row("i8mm-mxfp4-i16", Isa::I8mm, &[Format::MXFP4], i8mm::mxfp4),
    #[cfg(target_arch = "aarch64")]
    i16_row("dotprod-q4_0-i16", Isa::Dotprod, &[Format::Q4_0], dotprod::q4_0),
    #[cfg(target_arch = "aarch64")]
    i16_row("dotprod-q4_1-i16", Isa::Dotprod, &[Format::Q4_1], dotprod::q4_1),
    #[cfg(target_arch = "aarch64")]
    i16_row("dotprod-q5_0-i16", Isa::Dotprod, &[Format::Q5_0], dotprod::q5_0),
    #[cfg(target_arch = "aarch64")]
    i16_row("dotprod-q5_1-i16", Isa::Dotprod, &[Format::Q5_1], dotprod::q5_1),
    #[cfg(target_arch = "aarch64")]
    i16_row("dotprod-q8_0-i16", Isa::Dotprod, &[Format::Q8_0], dotprod::q8_0),
    #[cfg(target_arch = "aarch64")]
    i16_row("dotprod-q2_k-i16", Isa::Dotprod, &[Format::Q2_K], dotprod::q2_k),
    #[cfg(target_arch = "aarch64")]
    i16_row("dotprod-q3_k-i16", Isa::Dotprod, &[Format::Q3_K], dotprod::q3_k),
    #[cfg(target_arch = "aarch64")]
    i16_row("dotprod-q4_k-i16", Isa::Dotprod, &[Format::Q4_K], dotprod::q4_k),
    #[cfg(target_arch = "aarch64")]
    i16_row("dotprod-q5_k-i16", Isa::Dotprod, &[Format::Q5_K], dotprod::q5_k),
    #[cfg(target_arch = "aarch64")]
    i16_row("dotprod-q6_k-i16", Isa::Dotprod, &[Format::Q6_K], dotprod::q6_k),
    #[cfg(target_arch = "aarch64")]
    i16_row("dotprod-iq4_nl-i16", Isa::Dotprod, &[Format::IQ4_NL], dotprod::iq4_nl),
    #[cfg(target_arch = "aarch64")]
    i16_row("dotprod-iq4_xs-i16", Isa::Dotprod, &[Format::IQ4_XS], dotprod::iq4_xs),
    #[cfg(target_arch = "aarch64")]
    i16_row("dotprod-mxfp4-i16", Isa::Dotprod, &[Format::MXFP4], dotprod::mxfp4),
    #[cfg(target_arch = "aarch64")]
    float_row("neon-any-f32", Isa::Neon, neon::product),
    #[cfg(target_arch = "aarch64")]
    row("neon-f32-attend", "Attend", Isa::Neon, Run::Attend(neon::attend)),
    #[cfg(target_arch = "aarch64")]
    row("neon-f32-selectpages", "SelectPages", Isa::Neon, Run::SelectPages(neon::select)),
    #[cfg(target_arch = "aarch64")]
    row("neon-f32-norm", "Norm", Isa::Neon, Run::Norm(neon::norm)),
    #[cfg(target_arch = "aarch64")]
    row("neon-f32-rope", "Rope", Isa::Neon, Run::Rope(neon::rope)),
    #[cfg(target_arch = "aarch64")]
    row("neon-f32-activate", "Activate", Isa::Neon, Run::Activate(neon::activate)),
    #[cfg(target_arch = "aarch64")]
    row("neon-f32-add", "Add", Isa::Neon, Run::Add(neon::add)),
    #[cfg(target_arch = "aarch64")]
    row("neon-f32-scale", "Scale", Isa::Neon, Run::Scale(neon::scale)),
    #[cfg(target_arch = "aarch64")]
    row("neon-f32-softcap", "Softcap", Isa::Neon, Run::Softcap(neon::softcap)),
    float_row("generic-any-f32", Isa::Generic, |p, scratch, out| product(Portable, p, scratch, out)),
    row(
        "generic-f32-attend",
        "Attend",
        Isa::Generic,
        Run::Attend(|a, split, s, sums| attend(Portable, a, split, s, sums)),
    ),
    row(
        "generic-f32-selectpages",
        "SelectPages",
        Isa::Generic,
        Run::SelectPages(|a, at, pages, s, bits| select(Portable, a, at, pages, s, bits)),
    ),
    row("generic-f32-norm", "Norm", Isa::Generic, Run::Norm(|args, x, out| norm(Portable, args, x, out))),
    row("generic-f32-rope", "Rope", Isa::Generic, Run::Rope(|a, head_dim, x| rope(Portable, a, head_dim, x))),
    row(
        "generic-f32-activate",
        "Activate",
        Isa::Generic,
        Run::Activate(|kind, x, up, out| activate(Portable, kind, x, up, out)),
    ),
    row("generic-f32-add", "Add", Isa::Generic, Run::Add(|a, b, out| add(Portable, a, b, out))),
    row("generic-f32-scale", "Scale", Isa::Generic, Run::Scale(|factor, x| scale(Portable, factor, x))),
    row("generic-f32-softcap", "Softcap", Isa::Generic, Run::Softcap(|cap, x| softcap(Portable, cap, x))),
    rows("generic-any-embed", "Embed", Format::ALL),
    rows("generic-f32-kvstore", "KvStore", &[]),
    rows("generic-f32-querystore", "QueryStore", &[]),
    rows("generic-f32-takerows", "TakeRows", &[]),
    rows("generic-f32-topk", "TopK", &[]),
];

/// Every kernel, in order of preference.
pub fn registry() -> &'static [Kernel] {
    KERNELS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_op_has_a_portable_row_for_every_format() {
        let mut names: Vec<_> = registry().iter().map(|kernel| kernel.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), registry().len());
        for kernel in registry() {
            let formats: Vec<_> = match kernel.formats {
                [] => vec![None],
                formats => formats.iter().copied().map(Some).collect(),
            };
            for format in formats {
                let portable =
                    |row: &&Kernel| row.isa == Isa::Generic && row.exact && row.accepts(kernel.op, format);
                assert!(registry().iter().any(|row| portable(&row)), "{} {format:?}", kernel.name);
            }
        }
    }
}
