//! Every matrix row of the kernel registry on every format it accepts: `cargo bench -p cchaha-benches --bench matmul`.
//!
//! The shape is the feed-forward block of Qwen2.5-Coder-0.5B with its columns rounded up to whole super-blocks. `decode` is one token
//! and reports bytes of weights per second, `packed decode` the same where a row's weights can be packed; `prefill` is 64 tokens and reports operations
//! (two per multiply-add) per second, `coarse prefill` the same with 8-bit activations, where a row reads such. `roof:` is the share of what this machine reads from memory,
//! or multiplies in 8 bits, at best; the weights stay in caches here, so a decode above 1 outruns memory.
//! A name as filter picks rows, for example `-- avx2-q4_k`. `CCHAHA_ARG_THREADS` sets the threads.

use std::sync::Arc;
use std::time::Duration;

use cchaha_benches::{Fastest, PREFILL, Prepared, WEIGHT, Work, X, Y, plan, weight};
use cchaha_kernels::{Kernel, registry};
use cchaha_plan::{Format, Op, Shape};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const ROWS: usize = 4864;
const COLS: usize = 1024;

fn bench(c: &mut Criterion, kernel: &'static Kernel, format: Format) {
    let op = Op::MatMul { weight: WEIGHT, bias: None, residual: None, x: X, out: Y };
    let mut plan = plan(Format::F16, (COLS, ROWS), op, 1);
    plan.weights.push(weight("matrix", format, Shape::matrix(ROWS, COLS)));
    let plan = Arc::new(plan);
    let mut phases = vec![("decode", 1, false, false), ("prefill", PREFILL, false, false)];
    if kernel.packs() {
        phases.push(("packed decode", 1, false, true));
    }
    if kernel.reads_coarsely() {
        phases.push(("coarse prefill", PREFILL, true, false));
    }
    for (phase, n, coarse, pack) in phases {
        let mut prepared = Prepared::new(kernel, &plan, (0, n), coarse, pack);
        let mut fastest = Fastest::default();
        let mut group = c.benchmark_group(phase);
        group.sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
        let (work, throughput) = if n == 1 {
            let bytes = plan.weights[1].bytes.len();
            (Work::Bytes(bytes), Throughput::BytesDecimal(bytes as u64))
        } else {
            let ops = 2 * n * ROWS * COLS;
            (Work::Ops(ops), Throughput::Elements(ops as u64))
        };
        group.throughput(throughput);
        group.bench_function(BenchmarkId::new(kernel.name, format), |bencher| {
            bencher.iter_custom(|times| fastest.time(times, || prepared.run(1)));
        });
        group.finish();
        fastest.print(work);
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
