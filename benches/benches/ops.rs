//! Every other row of the kernel registry: `cargo bench -p cchaha-benches --bench ops`.
//!
//! Shapes are those of Qwen2.5-Coder-0.5B, 64 tokens, and for attention one token and 64 of them behind 2048 others. Rates are bytes read
//! and written in a second, for attention of 64 tokens operations (two per multiply-add). `roof:` is the share of what this machine reads
//! from memory, or multiplies in 8 bits, at best; rows of activations stay in caches, so some go past it. An op stands 32 times in its plan, so that
//! embedding the tokens and taking the results is little beside it.
//! A name as filter picks rows, for example `-- norm`. `CCHAHA_ARG_THREADS` sets the threads.

use std::sync::Arc;
use std::time::Duration;

use cchaha_benches::{Fastest, PREFILL, Prepared, WEIGHT, Work, X, Y, plan, weight};
use cchaha_kernels::{Kernel, registry};
use cchaha_plan::{
    Activation, BufferId, BufferSpec, Format, KvSlot, KvSpec, MaskId, MaskRule, NormKind, Op, PAGE_CELLS,
    Plan, RopeId, RopeLayout, RopePair, RopeTable, Rows, SelectionId, Shape, WeightId,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const REPEATS: usize = 32;
const N_HEADS: usize = 14;
const KV: KvSpec = KvSpec { n_kv_heads: 2, head_dim: 64 };
const KV_WIDTH: usize = KV.n_kv_heads * KV.head_dim;
/// Query heads together; the width of the residual stream, rounded up to whole super-blocks of every format; of the feed-forward block.
const Q_WIDTH: usize = N_HEADS * KV.head_dim;
const WIDTH: usize = 1024;
const HIDDEN: usize = 4864;
const DEPTH: usize = 2048;
const F32: usize = size_of::<f32>();
const F16: usize = size_of::<u16>();

/// The third buffer a plan may need; it is filled with zeros.
const Z: BufferId = BufferId(3);

/// One thing to time.
struct Case {
    name: String,
    plan: Plan,
    depth: usize,
    tokens: usize,
    /// Of one op.
    work: Work,
}

/// 64 tokens, rows of `width`; `rows` of them are read or written.
fn elementwise(kernel: &Kernel, width: usize, rows: usize, op: Op) -> Case {
    let mut plan = plan(Format::F32, (width, width), op, REPEATS);
    plan.buffers.push(BufferSpec { name: "z", width, rows: Rows::Tokens });
    plan.weights.push(weight("norm", Format::F32, Shape::vector(width)));
    let work = Work::Bytes(rows * PREFILL * width * F32);
    Case { name: kernel.name.into(), plan, depth: 0, tokens: PREFILL, work }
}

/// Queries in X, keys of a sequence of [`DEPTH`] cells and the batch's own.
fn attention(kernel: &Kernel, tokens: usize, work: Work, op: Op) -> Case {
    let mut plan = plan(Format::F32, (Q_WIDTH, Q_WIDTH), op, REPEATS);
    plan.kv.push(KV);
    plan.masks.push(match kernel.op {
        "SelectPages" => MaskRule::sliding(256),
        _ => MaskRule::CAUSAL,
    });
    plan.selections = 1;
    Case { name: format!("{}/{tokens}", kernel.name), plan, depth: DEPTH, tokens, work }
}

fn attend(kernel: &Kernel, tokens: usize) -> Case {
    let op = Op::Attend {
        q: X,
        slot: KvSlot(0),
        n_heads: N_HEADS,
        scale: 0.125,
        softcap: None,
        mask: MaskId(0),
        selection: None,
        sink_scores: None,
        out: Y,
    };
    // Token t sees DEPTH + t + 1 cells.
    let seen = tokens * DEPTH + tokens * (tokens + 1) / 2;
    let work = match tokens {
        1 => Work::Bytes(2 * F16 * seen * KV_WIDTH),
        _ => Work::Ops(4 * seen * Q_WIDTH),
    };
    attention(kernel, tokens, work, op)
}

/// What there is to time of a row; every row but those of MatMul.
fn cases(kernel: &Kernel) -> Vec<Case> {
    let elementwise = |width, rows, op| vec![elementwise(kernel, width, rows, op)];
    match kernel.op {
        "MatMul" => Vec::new(),
        "Attend" => [1, PREFILL].map(|tokens| attend(kernel, tokens)).into(),
        "SelectPages" => {
            let out = SelectionId(0);
            let op =
                Op::SelectPages { q: X, slot: KvSlot(0), n_heads: N_HEADS, mask: MaskId(0), pages: 16, out };
            // Least and greatest of every dimension.
            vec![attention(kernel, 1, Work::Bytes(DEPTH / PAGE_CELLS * KV_WIDTH * 2 * F32), op)]
        }
        "KvStore" => {
            let op = Op::KvStore { slot: KvSlot(0), k: X, v: Y };
            let mut plan = plan(Format::F32, (KV_WIDTH, KV_WIDTH), op, REPEATS);
            plan.kv.push(KV);
            let work = Work::Bytes(2 * PREFILL * KV_WIDTH * (F32 + F16));
            vec![Case { name: kernel.name.into(), plan, depth: 0, tokens: PREFILL, work }]
        }
        "Embed" => kernel.formats.iter().map(|&format| embed(kernel, format)).collect(),
        "TakeRows" => elementwise(WIDTH, 2, Op::TakeRows { x: X, out: BufferId(2) }),
        "TopK" => {
            let k = 8;
            let op = Op::TopK { x: X, k, values: Y, indices: Z };
            let mut plan = plan(Format::F32, (WIDTH, k), op, REPEATS);
            plan.buffers.push(BufferSpec { name: "indices", width: k, rows: Rows::Tokens });
            let work = Work::Bytes(PREFILL * (WIDTH + 2 * k) * F32);
            vec![Case { name: kernel.name.into(), plan, depth: 0, tokens: PREFILL, work }]
        }
        "Norm" => elementwise(
            WIDTH,
            2,
            Op::Norm {
                kind: NormKind::Rms,
                eps: 1e-6,
                weight: WEIGHT,
                bias: None,
                group: WIDTH,
                x: X,
                out: Y,
            },
        ),
        "Rope" => {
            let mut cases =
                elementwise(Q_WIDTH, 2, Op::Rope { table: RopeId(0), head_dim: KV.head_dim, x: X });
            let pair = |i| RopePair { axis: 0, frequency: 1e6f64.powf(-(i as f64) / 32.0) };
            let pairs = (0..KV.head_dim / 2).map(pair).collect();
            cases[0].plan.ropes.push(RopeTable { pairs, layout: RopeLayout::Halves, magnitude: 1.0 });
            cases
        }
        "Activate" => {
            elementwise(HIDDEN, 3, Op::Activate { activation: Activation::Silu, x: X, up: Some(Z), out: Y })
        }
        "Add" => elementwise(WIDTH, 3, Op::Add { a: X, b: Z, out: Y }),
        "Scale" => elementwise(WIDTH, 2, Op::Scale { factor: 1.0, x: X }),
        "Softcap" => elementwise(WIDTH, 2, Op::Softcap { cap: 30.0, x: X }),
        other => panic!("{}: what is there to time of {other}?", kernel.name),
    }
}

fn embed(kernel: &Kernel, format: Format) -> Case {
    let op = Op::Embed { table: WeightId(0), scale: 1.0, out: X };
    let plan = plan(format, (WIDTH, WIDTH), op, REPEATS);
    let work = Work::Bytes(plan.weights[0].bytes.len() + PREFILL * WIDTH * F32);
    Case { name: format!("{}/{format}", kernel.name), plan, depth: 0, tokens: PREFILL, work }
}

fn ops(c: &mut Criterion) {
    for kernel in registry().iter().filter(|kernel| kernel.isa.available()) {
        for case in cases(kernel) {
            let mut prepared =
                Prepared::new(kernel, &Arc::new(case.plan), (case.depth, case.tokens), false, false);
            let mut fastest = Fastest::default();
            let mut group = c.benchmark_group(kernel.op);
            group.sample_size(20);
            group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
            let (work, throughput) = match case.work {
                Work::Bytes(n) => (Work::Bytes(n * REPEATS), Throughput::BytesDecimal((n * REPEATS) as u64)),
                Work::Ops(n) => (Work::Ops(n * REPEATS), Throughput::Elements((n * REPEATS) as u64)),
            };
            group.throughput(throughput);
            group.bench_function(BenchmarkId::from_parameter(case.name), |bencher| {
                bencher.iter_custom(|times| fastest.time(times, || prepared.run(case.tokens)));
            });
            group.finish();
            fastest.print(work);
        }
    }
}

criterion_group!(benches, ops);
criterion_main!(benches);
