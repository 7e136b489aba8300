//! Mixture of experts, and the choice of the largest values it routes by.

use cchaha_plan::{BufferId, Error, Op, Result, Routing};

use super::matrix::lanes;
use super::{Lower, Stage, WIDTH, kind};
use crate::arena::Place;
use crate::args::{self, NONE};
use crate::launch::{Along, Launch};
use crate::pipelines::Variant;
use crate::weights::Stack;

impl Lower<'_> {
    pub(super) fn top_k(
        &self,
        x: BufferId,
        k: usize,
        [values, indices]: [Place; 2],
        softmax: bool,
    ) -> Result<Launch> {
        let args = args::TopK {
            x: self.place(x).base,
            x_stride: self.place(x).stride,
            values: values.base,
            values_stride: values.stride,
            indices: indices.base,
            indices_stride: indices.stride,
            width: self.width(x) as u32,
            k: k as u32,
            softmax: u32::from(softmax),
        };
        self.plain("TopK", &args, 1)
    }

    /// Route, gate and up of the chosen experts, activate, down, sum. Both routings are the softmax over the chosen.
    pub(super) fn experts(&mut self, op: &Op) -> Result<Stage> {
        let Op::Experts { router, routing, top_k, gate, up, down, activation, x, out } = *op else {
            return Err(Error::unsupported("not an Experts step"));
        };
        let softmax = matches!(routing, Routing::SoftmaxThenTopKRenormalized | Routing::TopKThenSoftmax);
        let regions = self.regions.clone();
        let [shares, indices] = regions.routed;
        let mut launches = vec![self.top_k(router, top_k, [shares, indices], softmax)?];
        let slots = top_k as u32;
        for (weight, x, share, out) in [
            (gate, self.place(x), top_k, regions.expert_gate),
            (up, self.place(x), top_k, regions.expert_up),
            (down, regions.expert_gate, 1, regions.expert_down),
        ] {
            let shape = self.plan.weight(weight).shape;
            if weight == down {
                let places = [regions.expert_gate, regions.expert_up, regions.expert_gate];
                launches.push(self.elementwise_at(
                    (1, kind(activation), 0.0),
                    places,
                    shape.cols,
                    slots,
                    NONE,
                )?);
            }
            let kernel = self.kernel("Experts", Some(self.plan.weight(weight).format), 1)?;
            for piece in self.weights.pieces(&Stack::Rows(vec![weight]))? {
                let [plane0, plane1, plane2, plane3] = piece.planes;
                let args = args::ExpertGemv {
                    x: x.base,
                    x_stride: x.stride,
                    out: out.base,
                    out_stride: out.stride,
                    indices: indices.base,
                    indices_stride: indices.stride,
                    top_k: slots,
                    share: share as u32,
                    rows: shape.rows as u32,
                    runs: piece.runs as u32,
                    first: piece.first as u32,
                    held: piece.rows as u32,
                    plane0,
                    plane1,
                    plane2,
                    plane3,
                };
                let lanes = lanes(piece.runs);
                let variant =
                    Variant::new(kernel).with("FORMAT", piece.layout.module).constant("LANES", lanes);
                let x = shape.rows.div_ceil(WIDTH / lanes);
                launches.push(self.launch(&variant, Some(&piece.group), &args, x, Along::Rows(slots)));
            }
        }
        let args = args::ExpertSum {
            x: regions.expert_down.base,
            x_stride: regions.expert_down.stride,
            out: self.place(out).base,
            out_stride: self.place(out).stride,
            shares: shares.base,
            shares_stride: shares.stride,
            width: self.width(out) as u32,
            top_k: slots,
        };
        launches.push(self.plain("ExpertSum", &args, self.width(out).div_ceil(WIDTH))?);
        Ok(self.always(out, launches))
    }
}
