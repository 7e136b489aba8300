//! Every matrix row of the kernel registry on every format it accepts: `cargo bench -p cchaha-benches --bench matmul`.
//!
//! The shape is the feed-forward block of Qwen2.5-Coder-0.5B with its columns rounded up to whole super-blocks. `decode` is one token
//! and reports bytes of weights per second, `prefill` is 64 tokens and reports operations (two per multiply-add) per second,
//! `coarse prefill` the same with 8-bit activations, where a row reads such.
//! A name as filter picks rows, for example `-- avx2-q4_k`. `CCHAHA_ARG_THREADS` sets the threads.

use std::hint::black_box;
use std::sync::Arc;

use cchaha_kernels::{Cpu, CpuOptions, Kernel, registry};
use cchaha_plan::{
    Backend, Batch, BufferId, BufferSpec, Bytes, Cells, Format, Limits, Op, Plan, Rows, Shape, Step, Weight,
    WeightId,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const ROWS: usize = 4864;
const COLS: usize = 1024;
const PREFILL: usize = 64;

/// Bytes below 0x40: whatever they are scales or values of, they are finite and not large.
fn weight(name: &str, format: Format, rows: usize) -> Weight {
    let n = rows * format.row_bytes(COLS).expect("COLS is whole blocks of every format");
    let mut state = 1u32;
    let bytes = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 26) as u8
    });
    let bytes = Bytes::from(bytes.take(n).collect::<Vec<_>>());
    Weight { name: name.into(), format, shape: Shape::matrix(rows, COLS), bytes }
}

/// Embeds the tokens, then multiplies.
fn plan(format: Format) -> Plan {
    let buffer = |name, width, rows| BufferSpec { name, width, rows };
    let (x, y, logits) = (BufferId(0), BufferId(1), BufferId(2));
    let step = |op| Step { op, layer: None };
    let (table, matrix) = (WeightId(0), WeightId(1));
    Plan {
        steps: vec![
            step(Op::Embed { table, scale: 1.0, out: x }),
            step(Op::MatMul { weight: matrix, bias: None, residual: None, x, out: y }),
            step(Op::TakeRows { x: y, out: logits }),
        ],
        buffers: vec![
            buffer("x", COLS, Rows::Tokens),
            buffer("y", ROWS, Rows::Tokens),
            buffer("logits", ROWS, Rows::Logits),
        ],
        weights: vec![weight("table", Format::F16, ROWS), weight("matrix", format, ROWS)],
        logits,
        ..Plan::new("bench", ROWS, PREFILL)
    }
}

fn bench(c: &mut Criterion, kernel: &'static Kernel, format: Format) {
    let threads = std::env::var("CCHAHA_ARG_THREADS").ok().and_then(|n| n.parse().ok());
    let options = CpuOptions { threads, exact: false, isa: Some(kernel.isa), kernel: Some(kernel.name) };
    let cpu = Cpu::new(options).expect("the row runs on this machine");
    let plan = Arc::new(plan(format));
    let limits = Limits { cells: PREFILL, batch: PREFILL, logits: 1 };
    let mut runner = cpu.prepare(plan.clone(), limits).expect("the plan is consistent");
    let mut cells = Cells::new(PREFILL);
    for (i, pos) in cells.pos.iter_mut().enumerate() {
        *pos = i as i32;
    }
    let pages: Vec<u32> = (0..(PREFILL / cchaha_plan::PAGE_CELLS) as u32).collect();
    let mut phases = vec![("decode", 1, false), ("prefill", PREFILL, false)];
    if kernel.reads_coarsely() {
        phases.push(("coarse prefill", PREFILL, true));
    }
    for (phase, n, coarse) in phases {
        let coarse = vec![coarse; n];
        let (ids, positions): (Vec<u32>, Vec<i32>) = (0..n as u32).map(|i| (i, i as i32)).unzip();
        let sequence = vec![0; n];
        let mut group = c.benchmark_group(phase);
        group.throughput(if n == 1 {
            Throughput::Bytes(plan.weights[1].bytes.len() as u64)
        } else {
            Throughput::Elements((2 * n * ROWS * COLS) as u64)
        });
        group.sample_size(20);
        group.bench_function(BenchmarkId::new(kernel.name, format), |bencher| {
            bencher.iter(|| {
                let batch = Batch {
                    tokens: &ids,
                    positions: &positions,
                    sequence: &sequence,
                    cell: &ids,
                    logits: &[0],
                    coarse: &coarse,
                    sequences: &[&pages],
                    cells: &cells,
                };
                black_box(runner.run(&batch).expect("the batch is valid")[0])
            });
        });
        group.finish();
    }
}

fn matmul(c: &mut Criterion) {
    for kernel in registry().iter().filter(|kernel| kernel.op == "MatMul" && kernel.isa.available()) {
        for &format in kernel.formats {
            bench(c, kernel, format);
        }
    }
}

criterion_group!(benches, matmul);
criterion_main!(benches);
