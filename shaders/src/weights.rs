//! Weights on the device: stacked, split by rows where a binding would be too large, packed into planes while they are
//! uploaded. The host never holds more than a chunk of them beside the file.

use std::collections::HashMap;
use std::sync::Arc;

use cchaha_plan::{Error, Format, Plan, Result, WeightId};

use crate::device::Device;
use crate::formats::{Decode, Layout, RUN};
use crate::pipelines::Pipelines;

/// Bytes packed before they are handed to the driver, and bytes the driver may hold before they are sent.
const CHUNK_BYTES: usize = 4 << 20;
const IN_FLIGHT_BYTES: usize = 64 << 20;

/// Rows are packed in multiples of this, so that every plane is written in whole words.
const ROW_STEP: usize = 16;

/// Which weights form one matrix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stack {
    /// The rows of one after those of the other (all experts of a weight too).
    Rows(Vec<WeightId>),
    /// Two alike; every piece holds the same rows of both.
    Pair(WeightId, WeightId),
}

/// Rows of a matrix in one buffer.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) group: Arc<wgpu::BindGroup>,
    /// First row of the matrix held here, and how many; of a pair, of each half.
    pub(crate) first: usize,
    pub(crate) rows: usize,
    pub(crate) runs: usize,
    /// Where the planes begin, in vec4s.
    pub(crate) planes: [u32; 4],
    pub(crate) layout: &'static Layout,
    pub(crate) format: Format,
}

/// Told of every upload: bytes of the file done and in all.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// All weights a runner uses.
pub(crate) struct Weights<'a> {
    pub(crate) device: &'a Device,
    pub(crate) pipelines: &'a Pipelines,
    pub(crate) plan: &'a Plan,
    pub(crate) decode: Decode,
    pub(crate) layout: Option<&'a str>,
    pub(crate) progress: Option<Progress>,
    /// Largest buffer a kernel can bind.
    pub(crate) max_bytes: usize,
    pieces: HashMap<Stack, Vec<Piece>>,
    done: u64,
    in_flight: usize,
    /// Device bytes of all pieces.
    pub(crate) bytes: u64,
}

impl<'a> Weights<'a> {
    pub(crate) fn new(
        device: &'a Device,
        pipelines: &'a Pipelines,
        plan: &'a Plan,
        decode: Decode,
        layout: Option<&'a str>,
        progress: Option<Progress>,
        max_bytes: usize,
    ) -> Weights<'a> {
        let pieces = HashMap::new();
        Weights {
            device,
            pipelines,
            plan,
            decode,
            layout,
            progress,
            max_bytes,
            pieces,
            done: 0,
            in_flight: 0,
            bytes: 0,
        }
    }

    /// The layout that holds a format.
    pub(crate) fn layout(&self, format: Format) -> Result<&'static Layout> {
        Layout::of(format, self.layout)
            .ok_or_else(|| Error::unsupported(format!("the GPU has no layout for {format} weights")))
    }

    /// The pieces of a matrix, uploaded when first asked for.
    pub(crate) fn pieces(&mut self, stack: &Stack) -> Result<Vec<Piece>> {
        if let Some(pieces) = self.pieces.get(stack) {
            return Ok(pieces.clone());
        }
        let pieces = self.upload(stack)?;
        self.pieces.insert(stack.clone(), pieces.clone());
        Ok(pieces)
    }

    fn upload(&mut self, stack: &Stack) -> Result<Vec<Piece>> {
        let (ids, halves) = match stack {
            Stack::Rows(ids) => (ids.clone(), 1),
            Stack::Pair(a, b) => (vec![*a, *b], 2),
        };
        let first = self.plan.weight(ids[0]);
        let (format, cols) = (first.format, first.shape.cols);
        let layout = self.layout(format)?;
        let runs = cols.div_ceil(RUN);
        let matrix_rows = |id: WeightId| {
            let shape = self.plan.weight(id).shape;
            shape.rows * shape.experts
        };
        let total =
            if halves == 2 { matrix_rows(ids[0]) } else { ids.iter().map(|&id| matrix_rows(id)).sum() };
        let row_bytes = layout.offsets(ROW_STEP, runs).1.div_ceil(ROW_STEP);
        // One step less than fits, for what aligning the planes adds.
        let most = (self.max_bytes / (row_bytes * halves) / ROW_STEP).saturating_sub(1) * ROW_STEP;
        if most == 0 {
            return Err(Error::new(
                cchaha_plan::ErrorKind::DoesNotFit,
                format!("{ROW_STEP} rows of weight {} exceed what a kernel of the GPU can bind", first.name),
            ));
        }
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < total {
            let rows = most.min(total - at);
            pieces.push(self.upload_piece(&ids, halves, layout, format, cols, at, rows)?);
            at += rows;
        }
        Ok(pieces)
    }

    #[allow(clippy::too_many_arguments)]
    fn upload_piece(
        &mut self,
        ids: &[WeightId],
        halves: usize,
        layout: &'static Layout,
        format: Format,
        cols: usize,
        first: usize,
        rows: usize,
    ) -> Result<Piece> {
        let runs = cols.div_ceil(RUN);
        let (offsets, size) = layout.offsets(rows * halves, runs);
        let buffer =
            self.device.buffer("weights", size, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST);
        self.device.check()?;
        self.bytes += size as u64;
        let source = Source { plan: self.plan, ids, halves, first, rows };
        let row_bytes = format.row_bytes(cols).expect("invariant: checked by Plan::validate");
        let chunk = (CHUNK_BYTES / (row_bytes + 4 * cols / RUN)).next_multiple_of(ROW_STEP).max(ROW_STEP);
        let mut planes: Vec<Vec<u8>> = vec![Vec::new(); layout.planes.len()];
        let mut at = 0;
        while at < rows * halves {
            let n = chunk.min(rows * halves - at);
            for (p, plane) in planes.iter_mut().enumerate() {
                plane.clear();
                plane.resize(layout.plane_bytes(p, n, runs), 0);
            }
            for i in 0..n {
                layout.pack_row(format, self.decode, source.row(at + i, row_bytes), i * runs, &mut planes);
            }
            for (p, plane) in planes.iter_mut().enumerate() {
                plane.resize(plane.len().next_multiple_of(4), 0);
                let offset = offsets[p] + layout.plane_bytes(p, at, runs);
                self.device.queue.write_buffer(&buffer, offset as u64, plane);
                self.in_flight += plane.len();
            }
            at += n;
            self.done += (n * row_bytes) as u64;
            if let Some(progress) = &self.progress {
                progress(self.done.min(self.plan.weight_bytes()), self.plan.weight_bytes());
            }
            if self.in_flight >= IN_FLIGHT_BYTES {
                self.flush()?;
            }
        }
        Ok(Piece {
            group: Arc::new(self.pipelines.bind(self.device, crate::registry::Binds::Weights, &[&buffer])),
            first,
            rows,
            runs,
            planes: offsets.map(|bytes| (bytes / 16) as u32),
            layout,
            format,
        })
    }

    /// Sends what the driver holds, and tells that all is done.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.flush()?;
        if let Some(progress) = &self.progress {
            progress(self.plan.weight_bytes(), self.plan.weight_bytes());
        }
        Ok(())
    }

    /// Sends what the driver holds.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.in_flight = 0;
        self.device.queue.submit([]);
        self.device.wait()
    }
}

/// The rows of a piece in the file.
struct Source<'a> {
    plan: &'a Plan,
    ids: &'a [WeightId],
    halves: usize,
    first: usize,
    rows: usize,
}

impl<'a> Source<'a> {
    /// Row `i` of the piece.
    fn row(&self, i: usize, row_bytes: usize) -> &'a [u8] {
        let (id, row) = if self.halves == 2 {
            (self.ids[i / self.rows], self.first + i % self.rows)
        } else {
            let mut row = self.first + i;
            let mut ids = self.ids.iter();
            loop {
                let id = *ids.next().expect("invariant: a row of the stack");
                let shape = self.plan.weight(id).shape;
                if row < shape.rows * shape.experts {
                    break (id, row);
                }
                row -= shape.rows * shape.experts;
            }
        };
        &self.plan.weight(id).bytes.as_slice()[row * row_bytes..][..row_bytes]
    }
}
