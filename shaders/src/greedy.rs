//! Greedy steps that feed each other: the likeliest token of a step stays in the arena, where the embedding of the next one reads
//! it, so that the next step is submitted before the host knows the token. The host reads four bytes a step, late.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver};

use cchaha_plan::{Error, ErrorKind, Plan, Result};

use crate::arena::Place;
use crate::args::{self, NONE};
use crate::device::{ANSWER, Device};
use crate::gpu::Choice;
use crate::launch::{Along, Launch};
use crate::pipelines::{Pipelines, Variant};

/// Steps under way at most: one that runs and one that waits for it.
const SLOTS: usize = 2;

/// Workgroups that share the logits, at most, and values that are worth one.
const MAX_GROUPS: usize = 64;
const SHARE: usize = 1024;

/// Floats in the arena: values and indices of every workgroup, then the value and the index that were chosen.
pub(crate) const REGION: usize = 2 * MAX_GROUPS + 2;

/// Where the index that was chosen stands in the arena.
pub(crate) fn chosen(region: Place) -> u32 {
    region.base + 2 * MAX_GROUPS as u32 + 1
}

#[derive(Debug)]
struct UnderWay {
    slot: usize,
    submission: wgpu::SubmissionIndex,
    mapped: Receiver<std::result::Result<(), wgpu::BufferAsyncError>>,
}

/// Buffers the tokens come back in, and the steps under way.
#[derive(Debug)]
pub(crate) struct Ahead {
    slots: [wgpu::Buffer; SLOTS],
    next: usize,
    under_way: VecDeque<UnderWay>,
    /// The choice of the largest logit.
    pub(crate) launches: Vec<Launch>,
    chosen: u32,
}

impl Ahead {
    pub(crate) fn new(
        device: &Device,
        pipelines: &Pipelines,
        choice: &Choice,
        plan: &Plan,
        logits: Place,
        region: Place,
    ) -> Result<Ahead> {
        use wgpu::BufferUsages as Usage;
        let width = plan.outputs();
        let groups = width.div_ceil(SHARE).min(MAX_GROUPS);
        let kernel = choice.kernel("ArgMax", None, 1);
        let kernel = kernel.ok_or_else(|| Error::unsupported("no GPU kernel computes ArgMax"))?;
        let pipeline = pipelines.get(device, &Variant::new(kernel));
        let launch = |args: &args::ArgMax, groups| {
            Launch::new(kernel.name, pipeline.clone(), None, args, groups, Along::Rows(1))
        };
        let parts = args::ArgMax {
            x: logits.base,
            from_index: NONE,
            values: region.base,
            indices: region.base + MAX_GROUPS as u32,
            width: width as u32,
            share: width.div_ceil(groups) as u32,
        };
        let whole = args::ArgMax {
            x: parts.values,
            from_index: parts.indices,
            values: chosen(region) - 1,
            indices: chosen(region),
            width: groups as u32,
            share: groups as u32,
        };
        let slots = [0; SLOTS].map(|_| device.buffer("token", 4, Usage::MAP_READ | Usage::COPY_DST));
        let launches = vec![launch(&parts, groups), launch(&whole, 1)];
        Ok(Ahead { slots, next: 0, under_way: VecDeque::new(), launches, chosen: chosen(region) })
    }

    /// Makes sure that another step may begin.
    pub(crate) fn check_room(&self) -> Result<()> {
        if self.under_way.len() < SLOTS {
            return Ok(());
        }
        Err(Error::usage(format!("{SLOTS} steps are under way; finish one before another begins")))
    }

    /// Has the token of the step being encoded copied out.
    pub(crate) fn copy(&self, encoder: &mut wgpu::CommandEncoder, arena: &wgpu::Buffer) {
        encoder.copy_buffer_to_buffer(arena, 4 * u64::from(self.chosen), &self.slots[self.next], 0, 4);
    }

    /// The step was submitted.
    pub(crate) fn submitted(&mut self, submission: wgpu::SubmissionIndex) {
        let (sender, mapped) = mpsc::channel();
        self.slots[self.next].map_async(wgpu::MapMode::Read, 0..4, move |outcome| {
            let _ = sender.send(outcome);
        });
        self.under_way.push_back(UnderWay { slot: self.next, submission, mapped });
        self.next = (self.next + 1) % SLOTS;
    }

    /// Whether steps are under way.
    pub(crate) fn busy(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Waits for the oldest step, not for those behind it.
    pub(crate) fn finish(&mut self, device: &Device) -> Result<u32> {
        let step = self.under_way.pop_front().ok_or_else(|| Error::usage("no step is under way"))?;
        device.wait_for(Some(step.submission))?;
        let lost = || Error::new(ErrorKind::Device, "the graphics device gave no token back");
        step.mapped.recv_timeout(ANSWER).map_err(|_| lost())?.map_err(|_| lost())?;
        let slot = &self.slots[step.slot];
        let view = slot.get_mapped_range(0..4).map_err(|_| lost())?;
        let index: f32 = bytemuck::pod_read_unaligned(&view);
        drop(view);
        slot.unmap();
        device.check()?;
        Ok(index as u32)
    }
}
