//! How fast the device reads its memory: what the speed of generation is measured against.

use std::sync::Arc;
use std::time::Instant;

use cchaha_plan::Result;

use crate::args;
use crate::gpu::Gpu;
use crate::launch::{Along, Launch};
use crate::pipelines::Variant;
use crate::registry::Binds;

/// Bytes read in one pass: more than caches hold, and no more than a binding of every device.
const PROBE_BYTES: usize = 128 << 20;

/// Invocations of a workgroup, and workgroups: enough to fill the largest devices.
const WIDTH: usize = 256;
const GROUPS: usize = 2048;

/// Passes in one submit, so that waiting for it counts little; and submits, of which the best counts.
const PASSES: usize = 8;
const SUBMITS: usize = 4;

/// The kernel that reads.
pub(crate) fn variant() -> Variant {
    Variant {
        kernel: "probe",
        module: "ops/probe",
        binds: Binds::Weights,
        parameters: Vec::new(),
        constants: Vec::new(),
    }
}

/// Bytes per second.
pub(crate) fn read_bytes_per_s(gpu: &Gpu) -> Result<f64> {
    use wgpu::BufferUsages as Usage;
    let (device, pipelines) = (&*gpu.device, &*gpu.pipelines);
    let vec4s = PROBE_BYTES / 16;
    let software = device.info.kind == crate::device::AdapterKind::Software;
    let passes = if software { 1 } else { PASSES };
    let data = device.buffer("probe", PROBE_BYTES, Usage::STORAGE | Usage::COPY_DST);
    let [arena, vectors, frame] = [0; 3].map(|bytes| device.buffer("probe", bytes, Usage::STORAGE));
    device.check()?;
    let variant = variant();
    let group = Arc::new(pipelines.bind(device, Binds::Weights, &[&data]));
    let args = args::Probe { rows: (vec4s / (WIDTH * GROUPS)) as u32, stride: (WIDTH * GROUPS) as u32 };
    let launch = Launch::new(
        variant.kernel,
        pipelines.get(device, &variant),
        Some(group.clone()),
        &args,
        GROUPS,
        Along::Rows(1),
    );
    let frame = pipelines.bind_frame(device, [&arena, &vectors, &frame]);
    let (words, bytes) = launch.immediates(1, 1);
    let mut best = 0.0f64;
    // The first submit clears the buffers and is not counted.
    for submit in 0..=SUBMITS {
        let started = Instant::now();
        let mut encoder = device.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&launch.pipeline);
        pass.set_bind_group(0, &frame, &[]);
        pass.set_bind_group(1, &*group, &[]);
        pass.set_immediates(0, &bytemuck::bytes_of(&words)[..bytes]);
        for _ in 0..passes {
            pass.dispatch_workgroups(GROUPS as u32, 1, 1);
        }
        drop(pass);
        device.queue.submit([encoder.finish()]);
        device.wait()?;
        if submit > 0 {
            best = best.max((passes * PROBE_BYTES) as f64 / started.elapsed().as_secs_f64());
        }
    }
    Ok(best)
}
