//! Where the time of the device goes: two timestamps around every dispatch, added up by kernel and weight format. While it is on,
//! every dispatch is a pass of its own, which devices without timestamps inside passes can do too; whole steps
//! are a little slower then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use cchaha_plan::{Error, ErrorKind, Format, Result};

use crate::device::{ANSWER, Device};
use crate::launch::Launch;

/// Dispatches of a batch that are timed; queries of a set are limited to twice this.
pub(crate) const MOST: usize = 2048;

/// What one kernel took on weights of one format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelTime {
    /// Row of [`crate::registry`].
    pub kernel: &'static str,
    /// Format of the weights, for kernels that read some.
    pub format: Option<Format>,
    /// Dispatches timed.
    pub dispatches: u64,
    /// Seconds on the device, all of them together.
    pub seconds: f64,
    /// Bytes of weights read.
    pub bytes: u64,
}

/// Times of all runners of a back end.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    on: AtomicBool,
    times: Mutex<Vec<KernelTime>>,
}

impl Profile {
    pub(crate) fn set(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// The times so far, which are forgotten.
    pub(crate) fn take(&self) -> Vec<KernelTime> {
        std::mem::take(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a dispatch.
    pub(crate) fn add(&self, launch: &Launch, seconds: f64) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |time: &&mut KernelTime| time.kernel == launch.kernel && time.format == launch.format;
        match times.iter_mut().find(same) {
            Some(time) => {
                time.dispatches += 1;
                time.seconds += seconds;
                time.bytes += launch.weight_bytes;
            }
            None => times.push(KernelTime {
                kernel: launch.kernel,
                format: launch.format,
                dispatches: 1,
                seconds,
                bytes: launch.weight_bytes,
            }),
        }
    }
}

/// Timestamps of one runner.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    pub(crate) queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
}

impl Stopwatch {
    pub(crate) fn new(device: &Device) -> Stopwatch {
        use wgpu::BufferUsages as Usage;
        let count = 2 * MOST as u32;
        let queries = device.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("times"),
            ty: wgpu::QueryType::Timestamp,
            count,
        });
        let bytes = 16 * MOST;
        Stopwatch {
            queries,
            resolved: device.buffer("times", bytes, Usage::QUERY_RESOLVE | Usage::COPY_SRC),
            staging: device.buffer("times", bytes, Usage::MAP_READ | Usage::COPY_DST),
        }
    }

    /// The timestamps around dispatch `i`.
    pub(crate) fn around(&self, i: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(2 * i as u32),
            end_of_pass_write_index: Some(2 * i as u32 + 1),
        }
    }

    /// Has the timestamps of `n` dispatches copied out.
    pub(crate) fn copy(&self, encoder: &mut wgpu::CommandEncoder, n: usize) {
        encoder.resolve_query_set(&self.queries, 0..2 * n as u32, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.staging, 0, 16 * n as u64);
    }

    /// Waits for the timestamps and gives the seconds between those of each of `n` pairs.
    pub(crate) fn seconds(&self, device: &Device, n: usize) -> Result<Vec<f64>> {
        let lost = || Error::new(ErrorKind::Device, "the graphics device gave no timestamps back");
        let (sender, mapped) = std::sync::mpsc::channel();
        let bytes = 16 * n as u64;
        self.staging.map_async(wgpu::MapMode::Read, 0..bytes, move |outcome| {
            let _ = sender.send(outcome);
        });
        device.wait()?;
        mapped.recv_timeout(ANSWER).map_err(|_| lost())?.map_err(|_| lost())?;
        let view = self.staging.get_mapped_range(0..bytes).map_err(|_| lost())?;
        let tick = f64::from(device.queue.get_timestamp_period()) * 1e-9;
        let pair = |pair: &[u8]| {
            let [begin, end]: [u64; 2] = bytemuck::pod_read_unaligned(pair);
            end.saturating_sub(begin) as f64 * tick
        };
        let seconds = view.chunks_exact(16).map(pair).collect();
        drop(view);
        self.staging.unmap();
        device.check()?;
        Ok(seconds)
    }
}
