//! Products of f32 matrices on the shapes of a training step: `cargo bench -p cchaha-benches --bench gemm`.
//!
//! A step over 2048 tokens of a model of width 256 and feed-forward width 768, in the three forms it needs: forward, for the input's
//! gradient, for the weight's. `roof:` is the share of independent multiply-adds in registers on all threads, what the machine can do at best.
//! `CCHAHA_ARG_THREADS` sets the threads.

use std::hint::black_box;

use cchaha_benches::{Fastest, pool};
use cchaha_kernels::{Matrix, fma_ops_per_s, gemm};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const TOKENS: usize = 2048;
const WIDTH: usize = 256;
const SHAPES: [(&str, usize, usize); 3] =
    [("square", WIDTH, WIDTH), ("gate", WIDTH, 768), ("down", 768, WIDTH)];

fn products(c: &mut Criterion) {
    let pool = pool();
    let roof = fma_ops_per_s(&pool);
    for (name, inputs, outputs) in SHAPES {
        let (x, y, w) =
            (vec![0.5; TOKENS * inputs], vec![0.25; TOKENS * outputs], vec![0.125; outputs * inputs]);
        let (x, y) = (Matrix::new(&x, TOKENS, inputs), Matrix::new(&y, TOKENS, outputs));
        let w = Matrix::new(&w, outputs, inputs);
        let forms = [("forward", x, w.t()), ("input gradient", y, w), ("weight gradient", y.t(), x)];
        let mut group = c.benchmark_group(name);
        group.sample_size(20);
        let ops = 2 * TOKENS * inputs * outputs;
        group.throughput(Throughput::Elements(ops as u64));
        for (form, a, b) in forms {
            let mut out = vec![0.0; a.rows() * b.cols()];
            let mut fastest = Fastest::default();
            group.bench_function(BenchmarkId::new("gemm", form), |bencher| {
                bencher.iter_custom(|times| {
                    fastest.time(times, || gemm(&pool, a, b, black_box(&mut out), false))
                });
            });
            fastest.print_of(ops, "GOP/s", roof, "in f32");
        }
        group.finish();
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
