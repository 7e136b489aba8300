//! A dispatch, ready to be encoded: everything but what the batch decides.

use std::sync::Arc;

use cchaha_plan::Format;

use crate::args::Args;
use crate::device::IMMEDIATE_BYTES;

const WORDS: usize = IMMEDIATE_BYTES as usize / 4;

/// Workgroups in one dimension, at most (the limit every device has).
const MAX_GROUPS: u32 = 65535;

/// How many workgroups there are along y for `n` rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Along {
    /// One for each of so many parts of a row.
    Rows(u32),
    /// One for so many rows.
    Tiles(u32),
}

/// See the file's header.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// Row of the registry.
    pub(crate) kernel: &'static str,
    /// Format and bytes of the weights it reads, where it reads some whole.
    pub(crate) format: Option<Format>,
    pub(crate) weight_bytes: u64,
    pub(crate) pipeline: Arc<wgpu::ComputePipeline>,
    pub(crate) group: Option<Arc<wgpu::BindGroup>>,
    args: [u32; WORDS],
    words: usize,
    /// Which word holds the number of rows.
    tokens_at: Option<usize>,
    /// Which word holds the number of parts attention is split into; they go along z.
    splits_at: Option<usize>,
    /// Runs only where attention is split.
    pub(crate) only_split: bool,
    x: u32,
    y: Along,
}

impl Launch {
    pub(crate) fn new<A: Args>(
        kernel: &'static str,
        pipeline: Arc<wgpu::ComputePipeline>,
        group: Option<Arc<wgpu::BindGroup>>,
        args: &A,
        x: usize,
        y: Along,
    ) -> Launch {
        let mut words = [0; WORDS];
        let given: &[u32] = bytemuck::cast_slice(std::slice::from_ref(args));
        words[..given.len()].copy_from_slice(given);
        let place = |name| A::FIELDS.iter().position(|(field, _)| *field == name);
        Launch {
            kernel,
            format: None,
            weight_bytes: 0,
            pipeline,
            group,
            args: words,
            words: given.len(),
            tokens_at: place("tokens"),
            splits_at: place("splits"),
            only_split: false,
            x: x as u32,
            y,
        }
    }

    /// The same, told something else.
    pub(crate) fn told<A: Args>(mut self, args: &A) -> Launch {
        let given: &[u32] = bytemuck::cast_slice(std::slice::from_ref(args));
        self.args[..given.len()].copy_from_slice(given);
        self
    }

    /// The same, known to read these weights.
    pub(crate) fn reading(mut self, format: Format, bytes: usize) -> Launch {
        (self.format, self.weight_bytes) = (Some(format), bytes as u64);
        self
    }

    /// The same for a kernel that never splits its work along z.
    pub(crate) fn whole(mut self) -> Launch {
        self.splits_at = None;
        self
    }

    /// Immediates for `n` rows and `splits` parts.
    pub(crate) fn immediates(&self, n: usize, splits: usize) -> ([u32; WORDS], usize) {
        let mut args = self.args;
        if let Some(at) = self.tokens_at {
            args[at] = n as u32;
        }
        if let Some(at) = self.splits_at {
            args[at] = splits as u32;
        }
        (args, 4 * self.words)
    }

    /// Workgroups for `n` rows and `splits` parts.
    pub(crate) fn groups(&self, n: usize, splits: usize) -> [u32; 3] {
        let y = match self.y {
            Along::Rows(parts) => n as u32 * parts,
            Along::Tiles(rows) => (n as u32).div_ceil(rows),
        };
        let z = if self.splits_at.is_some() && !self.only_split {
            splits as u32
        } else {
            self.x.div_ceil(MAX_GROUPS)
        };
        [self.x.min(MAX_GROUPS), y, z]
    }
}
