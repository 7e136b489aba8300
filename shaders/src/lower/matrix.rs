//! Products with weights: rows of a table, one matrix, several stacked to one, a gate and its partner.

use cchaha_plan::{Activation, BufferId, Error, Op, Result, WeightId};

use super::{CLASSES, Lower, Stage, WIDTH, kind};
use crate::arena::Place;
use crate::args::{self, NONE};
use crate::formats::RUN;
use crate::launch::{Along, Launch};
use crate::pipelines::Variant;
use crate::registry::{Kernel, Needs};
use crate::weights::{Piece, Stack};

/// Most invocations of a workgroup on every device.
const MAX_WIDTH: usize = 256;

impl Lower<'_> {
    pub(super) fn embed(&mut self, table: WeightId, scale: f32, out: BufferId) -> Result<Vec<Launch>> {
        let kernel = self.kernel("Embed", Some(self.plan.weight(table).format), 1)?;
        let pieces = self.weights.pieces(&Stack::Rows(vec![table]))?;
        let launch = |piece: &Piece| {
            let [plane0, plane1, plane2, plane3] = piece.planes;
            let args = args::Embed {
                out: self.place(out).base,
                out_stride: self.place(out).stride,
                scale,
                record: self.parts.record as u32,
                first: piece.first as u32,
                rows: piece.rows as u32,
                runs: piece.runs as u32,
                tokens: 0,
                plane0,
                plane1,
                plane2,
                plane3,
                fed: self.regions.fed,
            };
            let variant = Variant::new(kernel).with("FORMAT", piece.layout.module);
            self.launch(&variant, Some(&piece.group), &args, piece.runs.div_ceil(WIDTH), Along::Rows(1))
        };
        Ok(pieces.iter().map(launch).collect())
    }

    /// A product of a whole matrix: launches for every class.
    pub(super) fn products_of(
        &mut self,
        stack: &Stack,
        bias: u32,
        residual: Option<BufferId>,
        x: BufferId,
        out: Place,
    ) -> Result<[Vec<Launch>; 3]> {
        let Stack::Rows(ids) = stack else { return Err(Error::unsupported("a pair is no single matrix")) };
        let format = self.plan.weight(ids[0]).format;
        let pieces = self.weights.pieces(stack)?;
        let residual = residual.map(|id| self.place(id));
        let mut launches: [Vec<Launch>; 3] = Default::default();
        for (class, launches) in launches.iter_mut().enumerate() {
            let kernel = self.kernel("MatMul", Some(format), CLASSES[class])?;
            let x = self.operand(kernel, x, class, launches)?;
            for piece in &pieces {
                launches.push(self.product(kernel, piece, 0, (bias, residual, piece.first), x, out));
            }
        }
        Ok(launches)
    }

    /// `piece.rows` rows from row `first` of the piece's buffer on, written to `out` from column `column` on.
    pub(super) fn product(
        &self,
        kernel: &'static Kernel,
        piece: &Piece,
        first: usize,
        (bias, residual, column): (u32, Option<Place>, usize),
        x: Place,
        out: Place,
    ) -> Launch {
        let args = self.matmul_args(piece, first, (bias, residual, column), x, out);
        self.matrix_launch(kernel, piece, &args)
    }

    pub(super) fn matmul_args(
        &self,
        piece: &Piece,
        first: usize,
        (bias, residual, column): (u32, Option<Place>, usize),
        x: Place,
        out: Place,
    ) -> args::MatMul {
        let [plane0, plane1, plane2, plane3] = piece.planes;
        let column = column as u32;
        args::MatMul {
            x: x.base,
            x_stride: x.stride,
            out: out.base + column,
            out_stride: out.stride,
            residual: residual.map_or(NONE, |place| place.base + column),
            residual_stride: residual.map_or(0, |place| place.stride),
            bias: if bias == NONE { NONE } else { bias + column },
            first: first as u32,
            rows: piece.rows as u32,
            runs: piece.runs as u32,
            tokens: 0,
            activation: 0,
            plane0,
            plane1,
            plane2,
            plane3,
            twin: NONE,
        }
    }

    pub(super) fn matrix_launch(
        &self,
        kernel: &'static Kernel,
        piece: &Piece,
        args: &args::MatMul,
    ) -> Launch {
        let variant = Variant::new(kernel).with("FORMAT", piece.layout.module);
        let matrices = if kernel.op == "GatedMatMul" { 2 } else { 1 };
        let (_, bytes) = piece.layout.offsets(matrices * piece.rows, piece.runs);
        let launch = match kernel.counts.iter().find(|(name, _)| *name == "COLUMNS") {
            Some(&(_, columns)) => {
                let most = match kernel.needs {
                    Needs::Subgroups => self.device.info.subgroup.0 as usize,
                    _ => WIDTH,
                };
                let mut lanes = lanes(piece.runs).min(most.max(1));
                let mut variant = variant;
                let mut width = WIDTH;
                if args.twin != NONE {
                    // A workgroup has as many rows as a run has values, and no more invocations than every device allows.
                    lanes = lanes.min(MAX_WIDTH / RUN);
                    width = RUN * lanes;
                    variant = variant.constant("WIDTH", width);
                }
                let variant = variant.constant("LANES", lanes);
                let x = piece.rows.div_ceil(width / lanes);
                self.launch(&variant, Some(&piece.group), args, x, Along::Tiles(columns))
            }
            None => {
                let [rows, tokens] = kernel.tile();
                let variant = match kernel.width(self.device.info.subgroup.0) {
                    Some(width) => variant.constant("WIDTH", width),
                    None => variant,
                };
                let x = piece.rows.div_ceil(rows);
                self.launch(&variant, Some(&piece.group), args, x, Along::Tiles(tokens as u32))
            }
        };
        launch.reading(piece.format, bytes)
    }

    /// One or a few rows: both products and the gate in one kernel. Many: the products, then the gate.
    pub(super) fn gated(
        &mut self,
        gate: WeightId,
        up: WeightId,
        activation: Activation,
        x: BufferId,
        scratch: BufferId,
        out: BufferId,
    ) -> Result<[Vec<Launch>; 3]> {
        let format = self.plan.weight(gate).format;
        let (to_gate, to_up) = (self.place(scratch), self.place(out));
        let width = self.width(out);
        let activate = |lower: &Self, twin| {
            lower.elementwise_at((1, kind(activation), 0.0), [to_gate, to_up, to_up], width, 1, twin)
        };
        if self.plan.weight(up).format != format {
            let gates = self.products_of(&Stack::Rows(vec![gate]), NONE, None, x, to_gate)?;
            let mut launches = self.products_of(&Stack::Rows(vec![up]), NONE, None, x, to_up)?;
            for (class, (launches, gates)) in launches.iter_mut().zip(gates).enumerate() {
                launches.extend(gates);
                let twin = self.twin(out, class);
                launches.push(activate(self, twin)?);
            }
            return Ok(launches);
        }
        let pieces = self.weights.pieces(&Stack::Pair(gate, up))?;
        let mut launches: [Vec<Launch>; 3] = Default::default();
        let whole_runs = pieces.iter().all(|piece| piece.first.is_multiple_of(RUN));
        for (class, launches) in launches.iter_mut().enumerate() {
            if let Some(kernel) = self.choice.kernel("GatedMatMul", Some(format), CLASSES[class]) {
                let from = self.operand(kernel, x, class, launches)?;
                let twin = if whole_runs { self.twin(out, class) } else { NONE };
                for piece in &pieces {
                    let mut args = self.matmul_args(piece, 0, (NONE, None, piece.first), from, to_up);
                    args.activation = kind(activation);
                    args.twin = if twin == NONE { NONE } else { twin + piece.first as u32 };
                    launches.push(self.matrix_launch(kernel, piece, &args));
                }
                continue;
            }
            let kernel = self.kernel("MatMul", Some(format), CLASSES[class])?;
            let from = self.operand(kernel, x, class, launches)?;
            for piece in &pieces {
                for (first, out) in [(0, to_gate), (piece.rows, to_up)] {
                    launches.push(self.product(kernel, piece, first, (NONE, None, piece.first), from, out));
                }
            }
            let twin = self.twin(out, class);
            launches.push(activate(self, twin)?);
        }
        Ok(launches)
    }

    pub(super) fn stacked(&mut self, at: usize, n: usize) -> Result<Stage> {
        let steps = &self.plan.steps[at..at + n];
        let mut weights = Vec::new();
        let mut biases = Vec::new();
        let mut ends = None;
        for step in steps {
            let Op::MatMul { weight, bias, x, out, .. } = step.op else { continue };
            weights.push(weight);
            biases.push((bias, self.width(out)));
            ends.get_or_insert((x, out));
        }
        let (x, out) = ends.ok_or_else(|| Error::unsupported("no products to stack"))?;
        let bias = self.vectors.stacked(&biases);
        let launches = self.products_of(&Stack::Rows(weights), bias, None, x, self.place(out))?;
        Ok(self.stage(out, launches))
    }
}

/// Invocations that share a row of `runs` runs: a power of two, so many that short rows leave few idle.
pub(super) fn lanes(runs: usize) -> usize {
    (runs / 4).next_power_of_two().clamp(8, WIDTH)
}
