//! Products of f32 matrices on the shapes of a training step: `cargo bench -p cchaha-benches --bench gemm`.
//!
//! A step over 2048 tokens of a model of width 256 and feed-forward width 768, in the three forms it needs: forward, for the input's
//! gradient, for the weight's. `fma` is the roof: independent multiply-adds in registers on all threads, what the machine can do at best.
//! `CCHAHA_ARG_THREADS` sets the threads.

use std::hint::black_box;

use cchaha_kernels::{Matrix, Pool, gemm, physical_cores, vectorized};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const TOKENS: usize = 2048;
const WIDTH: usize = 256;
const SHAPES: [(&str, usize, usize); 3] =
    [("square", WIDTH, WIDTH), ("gate", WIDTH, 768), ("down", 768, WIDTH)];

/// Rounds of [`CHAINS`] multiply-adds of eight lanes.
const ROUNDS: usize = 1 << 18;
/// Two units with a latency of four need eight at least; more do not fit the registers.
const CHAINS: usize = 12;

fn multiply_adds(x: f32) -> f32 {
    vectorized(|| {
        let (a, b) = (black_box([x; 8]), black_box([1e-9f32; 8]));
        let mut sums = [[0.0f32; 8]; CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                for lane in 0..8 {
                    sum[lane] = sum[lane].mul_add(a[lane], b[lane]);
                }
            }
        }
        sums.iter().flatten().sum()
    })
}

fn products(c: &mut Criterion) {
    let threads = std::env::var("CCHAHA_ARG_THREADS").ok().and_then(|n| n.parse().ok());
    let pool = Pool::new(threads.unwrap_or_else(physical_cores)).expect("threads can be started");

    let mut group = c.benchmark_group("fma");
    group.sample_size(20);
    group.throughput(Throughput::Elements((2 * 8 * CHAINS * ROUNDS * pool.threads()) as u64));
    group.bench_function("registers", |bencher| {
        bencher.iter(|| {
            pool.each(0..pool.threads(), |i| {
                black_box(multiply_adds(0.5 + i as f32 * 1e-3));
            })
        });
    });
    group.finish();

    for (name, inputs, outputs) in SHAPES {
        let (x, y, w) =
            (vec![0.5; TOKENS * inputs], vec![0.25; TOKENS * outputs], vec![0.125; outputs * inputs]);
        let (x, y) = (Matrix::new(&x, TOKENS, inputs), Matrix::new(&y, TOKENS, outputs));
        let w = Matrix::new(&w, outputs, inputs);
        let forms = [("forward", x, w.t()), ("input gradient", y, w), ("weight gradient", y.t(), x)];
        let mut group = c.benchmark_group(name);
        group.sample_size(20);
        group.throughput(Throughput::Elements((2 * TOKENS * inputs * outputs) as u64));
        for (form, a, b) in forms {
            let mut out = vec![0.0; a.rows() * b.cols()];
            group.bench_function(BenchmarkId::new("gemm", form), |bencher| {
                bencher.iter(|| gemm(&pool, a, b, black_box(&mut out), false));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
