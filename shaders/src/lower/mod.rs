//! From a plan to dispatches: which kernel computes each step for one row, for a few and for many, and where its operands lie.
//! Steps by themselves are here; products, attention and experts have files of their own, and `fuse.rs` says which steps are
//! one dispatch.

mod attention;
mod experts;
mod fuse;
mod matrix;
mod rounding;

use std::sync::Arc;

use cchaha_plan::{Activation, BufferId, Error, Format, NormKind, Op, Plan, Result, RopeLayout, Rows};

use crate::arena::{Arena, Place};
use crate::args::{self, NONE};
use crate::device::Device;
use crate::frame::Parts;
use crate::gpu::Choice;
use crate::launch::{Along, Launch};
use crate::pipelines::{Pipelines, Variant};
use crate::registry::Kernel;
use crate::vectors::Vectors;
use crate::weights::{Stack, Weights};

pub(crate) use rounding::Twins;

/// Invocations of a workgroup of the kernels that take it as a constant.
const WIDTH: usize = 64;

/// Most rows of the classes a step is lowered for: one, a few, many.
pub(crate) const CLASSES: [usize; 3] = [1, 8, usize::MAX];

/// Most parts attention is split into, and cells of a part at least.
pub(crate) const MAX_SPLITS: usize = 16;
pub(crate) const SPLIT_CELLS: usize = 128;

/// What one or more steps of the plan became.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Whose rows it runs on.
    pub(crate) rows: Rows,
    /// Launches for each of [`CLASSES`].
    pub(crate) launches: [Vec<Launch>; 3],
}

/// Everything the lowering looks things up in.
pub(crate) struct Lower<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) device: &'a Device,
    pub(crate) pipelines: &'a Pipelines,
    pub(crate) choice: Choice,
    pub(crate) arena: &'a Arena,
    pub(crate) regions: &'a Regions,
    pub(crate) parts: &'a Parts,
    pub(crate) vectors: &'a Vectors,
    pub(crate) caches: &'a [Arc<wgpu::BindGroup>],
    pub(crate) weights: Weights<'a>,
    /// Name of the module that reads and writes the cache.
    pub(crate) kv: &'static str,
    /// The step that follows those being lowered.
    pub(crate) next: usize,
    /// Buffers whose twin holds what they hold, for each of [`CLASSES`].
    pub(crate) rounded: [Vec<BufferId>; 3],
}

/// Places in the arena beside the plan's buffers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Regions {
    /// Where the choice of a greedy step stands.
    pub(crate) fed: u32,
    /// Activations as integers, for the kernels that multiply those.
    pub(crate) twins: Twins,
    /// Parts of split attention.
    pub(crate) attention: u32,
    pub(crate) bounds: u32,
    pub(crate) selections: Vec<u32>,
    /// Queries of the last tokens, for each cache that can be folded.
    pub(crate) queries: Vec<Option<Place>>,
    /// What folding works on: the list of pages, then two rows of cells for each KV head.
    pub(crate) fold: [Place; 3],
    pub(crate) routed: [Place; 2],
    pub(crate) expert_gate: Place,
    pub(crate) expert_up: Place,
    pub(crate) expert_down: Place,
}

impl Lower<'_> {
    /// All stages, in order.
    pub(crate) fn stages(&mut self) -> Result<Vec<Stage>> {
        let (plan, mut stages) = (self.plan, Vec::new());
        self.rounded = Default::default();
        let mut at = 0;
        while at < plan.steps.len() {
            let products = self.products(at).max(1);
            let heads = if products == 1 { self.heads(at) } else { None };
            let attend = heads.as_ref().and_then(|(n, heads)| self.attended(at + n, heads));
            let steps = heads.as_ref().map_or(products, |(n, _)| *n);
            self.next = at + steps + usize::from(attend.is_some());
            (at..self.next).for_each(|step| self.forget_written(step));
            stages.push(match heads {
                Some((_, heads)) => match attend {
                    Some(attend) => {
                        let launches = self.attend(attend, Some(&heads))?;
                        self.stage(heads.q, launches)
                    }
                    None => {
                        let launch = self.heads_launch(&heads)?;
                        self.always(heads.q, vec![launch])
                    }
                },
                None if products > 1 => self.stacked(at, products)?,
                None => self.step(&plan.steps[at].op)?,
            });
            at = self.next;
        }
        self.weights.finish()?;
        Ok(stages)
    }

    fn place(&self, id: BufferId) -> Place {
        self.arena.place(id)
    }

    fn width(&self, id: BufferId) -> usize {
        self.plan.buffer(id).width
    }

    fn stage(&self, like: BufferId, launches: [Vec<Launch>; 3]) -> Stage {
        Stage { rows: self.plan.buffer(like).rows, launches }
    }

    /// The same launches whatever the number of rows.
    fn always(&self, like: BufferId, launches: Vec<Launch>) -> Stage {
        self.stage(like, [launches.clone(), launches.clone(), launches])
    }

    fn kernel(&self, op: &str, format: Option<Format>, rows: usize) -> Result<&'static Kernel> {
        self.choice.kernel(op, format, rows).ok_or_else(|| {
            let format = format.map(|format| format!(" on {format}")).unwrap_or_default();
            Error::unsupported(format!("no GPU kernel computes {op}{format}"))
        })
    }

    fn launch<A: args::Args>(
        &self,
        variant: &Variant,
        group: Option<&Arc<wgpu::BindGroup>>,
        args: &A,
        x: usize,
        y: Along,
    ) -> Launch {
        Launch::new(variant.kernel, self.pipelines.get(self.device, variant), group.cloned(), args, x, y)
    }

    /// A kernel without weights or cache: `x` workgroups for each row.
    fn plain<A: args::Args>(&self, op: &str, args: &A, x: usize) -> Result<Launch> {
        let variant = Variant::new(self.kernel(op, None, 1)?);
        Ok(self.launch(&variant, None, args, x, Along::Rows(1)))
    }

    fn step(&mut self, op: &Op) -> Result<Stage> {
        match *op {
            Op::Embed { table, scale, out } => {
                let launches = self.embed(table, scale, out)?;
                Ok(self.always(out, launches))
            }
            Op::Norm { kind, eps, weight, bias, group, x, out } => {
                let mut args = args::Norm {
                    x: self.place(x).base,
                    x_stride: self.place(x).stride,
                    out: self.place(out).base,
                    out_stride: self.place(out).stride,
                    group: group as u32,
                    weight: self.vectors.at(weight),
                    bias: self.vectors.optional(bias),
                    kind: u32::from(kind == NormKind::Layer),
                    eps,
                    twin: NONE,
                };
                let groups = self.width(x) / group;
                if groups > 1 {
                    let launch = self.plain("Norm", &args, groups)?;
                    return Ok(self.always(out, vec![launch]));
                }
                self.rounding(out, |lower, twin| {
                    args.twin = twin;
                    lower.plain("Norm", &args, 1)
                })
            }
            Op::MatMul { weight, bias, residual, x, out } => {
                let stack = Stack::Rows(vec![weight]);
                let launches =
                    self.products_of(&stack, self.vectors.optional(bias), residual, x, self.place(out))?;
                Ok(self.stage(out, launches))
            }
            Op::GatedMatMul { gate, up, activation, x, scratch, out } => {
                let launches = self.gated(gate, up, activation, x, scratch, out)?;
                Ok(self.stage(out, launches))
            }
            Op::Rope { table, head_dim, x } => {
                let rope = &self.plan.ropes[table.index()];
                let heads = self.width(x) / head_dim;
                let args = args::Rope {
                    x: self.place(x).base,
                    x_stride: self.place(x).stride,
                    heads: heads as u32,
                    head_dim: head_dim as u32,
                    pairs: rope.pairs.len() as u32,
                    interleaved: u32::from(rope.layout == RopeLayout::Interleaved),
                    table: self.parts.tables[table.index()] as u32,
                    magnitude: rope.magnitude as f32,
                    record: self.parts.record as u32,
                };
                let launch = self.plain("Rope", &args, (heads * rope.pairs.len()).div_ceil(WIDTH).max(1))?;
                Ok(self.always(x, vec![launch]))
            }
            Op::KvStore { slot, k, v } => self.kv_store(slot, k, v),
            Op::QueryStore { q, slot, .. } => self.query_store(q, slot),
            Op::SelectPages { .. } => self.select_pages(op),
            Op::Attend { out, .. } => {
                let launches = self.attend(op, None)?;
                Ok(self.stage(out, launches))
            }
            Op::Activate { activation, x, up, out } => {
                let mode = if up.is_some() { 1 } else { 0 };
                self.elementwise((mode, kind(activation), 0.0), x, up.unwrap_or(x), out)
            }
            Op::Add { a, b, out } => self.elementwise((2, 0, 0.0), a, b, out),
            Op::Scale { factor, x } => self.elementwise((3, 0, factor), x, x, x),
            Op::Softcap { cap, x } => self.elementwise((4, 0, cap), x, x, x),
            Op::TakeRows { x, out } => {
                let mut args = args::TakeRows {
                    x: self.place(x).base,
                    x_stride: self.place(x).stride,
                    out: self.place(out).base,
                    out_stride: self.place(out).stride,
                    width: self.width(x) as u32,
                    wanted: self.parts.wanted as u32,
                    twin: NONE,
                };
                let groups = self.width(x).div_ceil(WIDTH);
                self.rounding(out, |lower, twin| {
                    args.twin = twin;
                    lower.plain("TakeRows", &args, groups)
                })
            }
            Op::Experts { .. } => self.experts(op),
            Op::TopK { x, k, values, indices } => {
                let launch = self.top_k(x, k, [self.place(values), self.place(indices)], false)?;
                Ok(self.always(values, vec![launch]))
            }
        }
    }

    fn elementwise(
        &mut self,
        what: (u32, u32, f32),
        x: BufferId,
        y: BufferId,
        out: BufferId,
    ) -> Result<Stage> {
        let (places, width) = ([x, y, out].map(|id| self.place(id)), self.width(x));
        self.rounding(out, |lower, twin| lower.elementwise_at(what, places, width, 1, twin))
    }

    fn elementwise_at(
        &self,
        (mode, activation, factor): (u32, u32, f32),
        [x, y, out]: [Place; 3],
        width: usize,
        parts: u32,
        twin: u32,
    ) -> Result<Launch> {
        let args = args::Elementwise {
            x: x.base,
            x_stride: x.stride,
            y: y.base,
            y_stride: y.stride,
            out: out.base,
            out_stride: out.stride,
            width: width as u32,
            mode,
            activation,
            factor,
            twin,
        };
        let variant = Variant::new(self.kernel("Elementwise", None, 1)?);
        Ok(self.launch(&variant, None, &args, width.div_ceil(WIDTH), Along::Rows(parts)))
    }
}

fn kind(activation: Activation) -> u32 {
    match activation {
        Activation::Silu => 0,
        Activation::GeluTanh => 1,
    }
}
