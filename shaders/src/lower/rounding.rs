//! Activations as integers, for the kernels that multiply those. Every buffer that such a kernel may read has a twin, and
//! whoever writes the buffer rounds it on the way where its workgroups write whole runs; otherwise a dispatch of its own does.

use cchaha_plan::{BufferId, BufferSpec, Format, Limits, Op, Plan, Result};

use super::{CLASSES, Lower, Stage, WIDTH};
use crate::arena::{Arena, Place, row_limit};
use crate::args::{self, NONE};
use crate::formats::RUN;
use crate::gpu::Choice;
use crate::launch::Launch;
use crate::registry::Kernel;

/// Where twins lie: of every buffer the place, of no rows where nobody rounds it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Twins {
    places: Vec<Place>,
}

impl Twins {
    /// Room for as many rows as kernels may be chosen for; where they are chosen by time, any of those may be.
    pub(crate) fn new(
        plan: &Plan,
        limits: &Limits,
        choice: &Choice,
        tunes: bool,
        arena: &mut Arena,
    ) -> Twins {
        let mut rows = vec![0; plan.buffers.len()];
        for step in &plan.steps {
            let (Op::MatMul { x, .. } | Op::GatedMatMul { x, .. }) = step.op else { continue };
            let most = row_limit(plan.buffer(x).rows, limits);
            for class in CLASSES {
                let may = tunes && class <= CLASSES[1] || rounds(plan, choice, &step.op, x, class);
                rows[x.index()] = rows[x.index()].max(if may { class.min(most) } else { 0 });
            }
        }
        let place = |(buffer, rows): (&BufferSpec, usize)| match rows {
            0 => Place::default(),
            rows => arena.take(buffer.width, rows),
        };
        Twins { places: plan.buffers.iter().zip(rows).map(place).collect() }
    }
}

/// Whether a step of at most `class` rows multiplies the rounded values of `x`.
fn rounds(plan: &Plan, choice: &Choice, op: &Op, x: BufferId, class: usize) -> bool {
    let row = |op, format: Format| choice.kernel(op, Some(format), class);
    let row = match *op {
        Op::MatMul { weight, x: from, .. } if from == x => row("MatMul", plan.weight(weight).format),
        Op::GatedMatMul { gate, up, x: from, .. } if from == x => {
            let [gate, up] = [gate, up].map(|id| plan.weight(id).format);
            let fused = row("GatedMatMul", gate).filter(|_| gate == up);
            fused.or_else(|| [gate, up].into_iter().filter_map(|f| row("MatMul", f)).find(|row| row.rounds()))
        }
        _ => None,
    };
    row.is_some_and(Kernel::rounds)
}

impl Lower<'_> {
    /// The step at `at` begins: what it writes is not rounded any more.
    pub(super) fn forget_written(&mut self, at: usize) {
        let (_, written) = self.plan.steps[at].op.buffers();
        self.rounded.iter_mut().for_each(|known| known.retain(|id| !written.contains(id)));
    }

    /// For a kernel that writes whole runs of `out` for the rows of a class: where it is to leave them rounded too, NONE where no
    /// product that follows wants that.
    pub(super) fn twin(&mut self, out: BufferId, class: usize) -> u32 {
        let (place, twin) = (self.place(out), self.regions.twins.places[out.index()]);
        if twin.stride != place.stride || !self.read_rounded(out, CLASSES[class]) {
            return NONE;
        }
        self.rounded[class].push(out);
        twin.base
    }

    fn read_rounded(&self, out: BufferId, class: usize) -> bool {
        for step in &self.plan.steps[self.next..] {
            if rounds(self.plan, &self.choice, &step.op, out, class) {
                return true;
            }
            if step.op.buffers().1.contains(&out) {
                return false;
            }
        }
        false
    }

    /// The stage of a kernel that may round what it writes to `out`.
    pub(super) fn rounding(
        &mut self,
        out: BufferId,
        mut launch: impl FnMut(&Self, u32) -> Result<Launch>,
    ) -> Result<Stage> {
        let mut launches: [Vec<Launch>; 3] = Default::default();
        for (class, launches) in launches.iter_mut().enumerate() {
            let twin = self.twin(out, class);
            launches.push(launch(self, twin)?);
        }
        Ok(self.stage(out, launches))
    }

    /// Where a kernel finds the activations: as they are, or rounded, if need be by a dispatch before it.
    pub(super) fn operand(
        &mut self,
        kernel: &Kernel,
        x: BufferId,
        class: usize,
        launches: &mut Vec<Launch>,
    ) -> Result<Place> {
        let place = self.place(x);
        if !kernel.rounds() {
            return Ok(place);
        }
        let (twin, runs) = (self.regions.twins.places[x.index()], self.width(x) / RUN);
        if !self.rounded[class].contains(&x) {
            let args = args::Quantize {
                x: place.base,
                x_stride: place.stride,
                out: twin.base,
                out_stride: twin.stride,
                runs: runs as u32,
            };
            launches.push(self.plain("Quantize", &args, runs.div_ceil(WIDTH))?);
            self.rounded[class].push(x);
        }
        Ok(twin)
    }
}
