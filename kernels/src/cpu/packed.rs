//! Weights packed while a model decodes.
//!
//! Rows as a file stores them are unpacked at half the speed of memory where that is fast; packed rows are read at its speed. Packing costs about as
//! much time as five tokens. So it begins with the first token that is decoded, and every token packs as much as costs less than it will save: nothing is
//! waited for when a model is loaded, and who only reads a prompt never pays. What was packed is released from the mapped file, so memory
//! holds every weight once.

use std::collections::VecDeque;
use std::ops::Range;

use cchaha_plan::{Op, Plan, WeightId};
use memmap2::MmapMut;

use super::Picked;
use crate::pool::{Grid, Pool};
use crate::scratch::Scratch;

/// Tokens by which all is packed.
const TOKENS: usize = 32;

/// Bytes of rows a thread packs at a time.
const PART_BYTES: usize = 256 << 10;

/// Where a packed weight may begin: at a cache line.
const ALIGNMENT: usize = 64;

/// See the file's header.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    /// Room for all that will be packed; the system gives it pages as they are written.
    room: Option<MmapMut>,
    /// Bytes of it that are taken.
    taken: usize,
    /// By weight, where those that are packed stand.
    weights: Vec<Option<Range<usize>>>,
    queue: VecDeque<WeightId>,
    /// Bytes to pack in all.
    bytes: usize,
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
                    bytes += weight.bytes.len().next_multiple_of(ALIGNMENT);
                    queue.push_back(id);
                }
            }
        }
        if bytes > most {
            return Packed::default();
        }
        let weights = plan.weights.iter().map(|_| None).collect();
        Packed { weights, queue, bytes, ..Packed::default() }
    }

    /// The packed bytes of a weight.
    pub(crate) fn of(&self, id: WeightId) -> Option<&[u8]> {
        let at = self.weights.get(id.index())?.clone()?;
        Some(&self.room.as_ref()?[at])
    }

    /// Packs one token's share.
    pub(crate) fn go_on(&mut self, plan: &Plan, picked: &Picked, pool: &Pool, scratch: &mut [Scratch]) {
        if self.queue.is_empty() {
            return;
        }
        let room = match self.room.take().map_or_else(|| room(self.bytes), Ok) {
            Ok(room) => self.room.insert(room),
            Err(_) => return self.queue.clear(), // without the memory all stays as it is
        };
        let mut left = self.bytes / TOKENS;
        while left > 0
            && let Some(id) = self.queue.pop_front()
        {
            let weight = plan.weight(id);
            let Some(pack) = picked.matmul[weight.format as usize].pack else { continue };
            let at = self.taken..self.taken + weight.bytes.len();
            self.taken = at.end.next_multiple_of(ALIGNMENT);
            let packed = &mut room[at.clone()];
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
            left = left.saturating_sub(at.len());
            self.weights[id.index()] = Some(at);
        }
    }
}

/// Room for so many bytes, in pages of 2 MiB where the system has such: the faults of 4 KiB pages would take longer than packing, and
/// with a mapping for each weight a third of a model of 1.5 billion was in those.
fn room(bytes: usize) -> std::io::Result<MmapMut> {
    let room = MmapMut::map_anon(bytes)?;
    #[cfg(target_os = "linux")]
    let _ = room.advise(memmap2::Advice::HugePage);
    Ok(room)
}
