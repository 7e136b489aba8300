//! Weights packed while a model decodes.
//!
//! Rows as a file stores them are unpacked at half the speed of memory where that is fast; packed rows are read at its speed. Packing costs about as
//! much time as five tokens. So it begins with the first token that is decoded, and every token packs as much as costs less than it will save: nothing is
//! waited for when a model is loaded, and who only reads a prompt never pays. What was packed is released from the mapped file, so memory
//! holds every weight once.

use std::collections::VecDeque;

use cchaha_plan::{Op, Plan, WeightId};
use memmap2::MmapMut;

use super::Picked;
use crate::pool::{Grid, Pool};
use crate::scratch::Scratch;

/// Tokens by which all is packed.
const TOKENS: usize = 32;

/// Bytes of rows a thread packs at a time.
const PART_BYTES: usize = 256 << 10;

/// See the file's header.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    /// By weight, of those that are packed.
    weights: Vec<Option<MmapMut>>,
    queue: VecDeque<WeightId>,
    /// Bytes to pack for each token.
    per_token: usize,
}

impl Packed {
    /// What of the plan may be packed, if all of it together takes at most `most` bytes.
    pub(crate) fn new(plan: &Plan, picked: &Picked, most: usize) -> Packed {
        let mut queue = VecDeque::new();
        let mut bytes = 0;
        for step in &plan.steps {
            let weights = match step.op {
                Op::MatMul { weight, .. } => [Some(weight), None, None],
                Op::GatedMatMul { gate, up, .. } => [Some(gate), Some(up), None],
                Op::Experts { gate, up, down, .. } => [Some(gate), Some(up), Some(down)],
                _ => [None; 3],
            };
            for id in weights.into_iter().flatten() {
                let weight = plan.weight(id);
                if picked.matmul[weight.format as usize].pack.is_some() && !queue.contains(&id) {
                    bytes += weight.bytes.len();
                    queue.push_back(id);
                }
            }
        }
        if bytes > most {
            return Packed::default();
        }
        let weights = plan.weights.iter().map(|_| None).collect();
        Packed { weights, queue, per_token: bytes / TOKENS }
    }

    /// The packed bytes of a weight.
    pub(crate) fn of(&self, id: WeightId) -> Option<&[u8]> {
        self.weights.get(id.index())?.as_deref()
    }

    /// Packs one token's share.
    pub(crate) fn go_on(&mut self, plan: &Plan, picked: &Picked, pool: &Pool, scratch: &mut [Scratch]) {
        let mut left = self.per_token;
        while left > 0
            && let Some(id) = self.queue.pop_front()
        {
            let weight = plan.weight(id);
            let Some(pack) = picked.matmul[weight.format as usize].pack else { continue };
            let Ok(mut packed) = MmapMut::map_anon(weight.bytes.len()) else {
                // Without the memory the rest stays as it is.
                self.queue.clear();
                return;
            };
            // Pages of 2 MiB: the faults of 4 KiB pages would take longer than packing.
            #[cfg(target_os = "linux")]
            let _ = packed.advise(memmap2::Advice::HugePage);
            let (shape, row_bytes) = (weight.shape, weight.row_bytes());
            let part = (PART_BYTES / row_bytes).max(1).next_multiple_of(8) * row_bytes;
            let matrix = shape.rows * row_bytes;
            for (stored, packed) in weight.bytes.as_slice().chunks(matrix).zip(packed.chunks_mut(matrix)) {
                let parts = Grid::new(packed, 1, matrix, 1, part);
                pool.run(scratch, parts, |_, _, mut tile| {
                    pack(&stored[tile.cols()], shape.cols, tile.row(0));
                });
            }
            weight.bytes.release();
            left = left.saturating_sub(packed.len());
            self.weights[id.index()] = Some(packed);
        }
    }
}
