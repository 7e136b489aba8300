//! The roofs of a processor: how many bytes it reads from memory and how many operations it does in a second, at best.
//!
//! ```text
//! attainable operations/s = min(roof of operations, operations per byte * roof of bytes)
//! ```
//! (Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.) Both are measured on all threads of a pool. Operations are two
//! per multiply-add of 8-bit integers, in the best instruction for that this machine has, whatever a run is held to.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[cfg(target_arch = "aarch64")]
use crate::aarch64::peak;
use crate::gemm::vectorized;
use crate::isa::Isa;
use crate::pool::Pool;
#[cfg(target_arch = "x86_64")]
use crate::x86_64::peak;

/// How long each roof is measured. The best pass counts: others share the machine, and none makes it faster than it is.
const PATIENCE: Duration = Duration::from_millis(100);

/// Parts of a pass for each thread, so that one that is held up does not hold up all.
const PARTS: usize = 8;

/// Work: what a kernel or a whole forward pass computes, and what it has to read from memory for that.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Multiplications and additions, each counted.
    pub ops: f64,
    /// Bytes.
    pub bytes: f64,
}

impl Work {
    /// Operations per byte.
    pub fn intensity(&self) -> f64 {
        self.ops / self.bytes
    }
}

/// See the file's header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roofs {
    /// Bytes read from memory in a second.
    pub bytes_per_s: f64,
    /// Operations in a second, two per multiply-add of 8-bit integers (of f32 where there is no instruction for those).
    pub ops_per_s: f64,
}

impl Roofs {
    /// Measures both; takes about a fifth of a second and, for that long, 256 MiB to 1 GiB of memory.
    pub fn measure(pool: &Pool) -> Roofs {
        Roofs { bytes_per_s: read_bytes_per_s(pool), ops_per_s: ops_per_s(pool, products_of_8_bits()) }
    }

    /// The higher of each: a machine shared with others is at times slower than it is.
    pub fn max(self, other: Roofs) -> Roofs {
        Roofs {
            bytes_per_s: self.bytes_per_s.max(other.bytes_per_s),
            ops_per_s: self.ops_per_s.max(other.ops_per_s),
        }
    }

    /// Operations in a second at most, where there are `intensity` of them for each byte read.
    pub fn attainable(&self, intensity: f64) -> f64 {
        self.ops_per_s.min(intensity * self.bytes_per_s)
    }

    /// What share of the lower of the two roofs some work reached that took `seconds`. Data that stays in caches can go past the roof
    /// of bytes.
    pub fn fraction(&self, work: Work, seconds: f64) -> f64 {
        (work.ops / self.ops_per_s).max(work.bytes / self.bytes_per_s) / seconds
    }
}

/// Operations in a second, two per multiply-add of f32 in vectors of eight: the roof of [`crate::gemm`].
pub fn fma_ops_per_s(pool: &Pool) -> f64 {
    ops_per_s(pool, multiply_adds)
}

/// The best of the passes that fit into [`PATIENCE`], at least one; `pass` gives back how much it did.
fn best_rate(pass: impl Fn() -> f64) -> f64 {
    let begun = Instant::now();
    let mut best = 0.0f64;
    loop {
        let started = Instant::now();
        let done = pass();
        best = best.max(done / started.elapsed().as_secs_f64().max(1e-9));
        if begun.elapsed() > PATIENCE {
            return best;
        }
    }
}

/// Streams a thread reads side by side. On 2-core AMD EPYC Zen 4 (2026-11) two threads read 33 GB/s with one stream each, 36 with two, 37 with
/// four, 34 with eight; 38 is the most that pages of 2 MiB gave.
const STREAMS: usize = 4;
/// Words of a cache line.
const LINE: usize = 8;

fn read_bytes_per_s(pool: &Pool) -> f64 {
    // Far more than caches hold: of 128 MiB they hold enough to read a tenth faster than 512, with 32 MiB of L3.
    let bytes = (pool.threads() << 27).clamp(256 << 20, 1 << 30);
    let words = vec![1u64; bytes / size_of::<u64>()];
    let part = words.len().div_ceil(PARTS * pool.threads()).next_multiple_of(STREAMS * LINE);
    best_rate(|| {
        let sum = AtomicU64::new(0);
        pool.each(words.chunks(part), |part| {
            sum.fetch_add(sum_of(part), Ordering::Relaxed);
        });
        // Each word is a one: what was read is what was summed.
        (sum.into_inner() * size_of::<u64>() as u64) as f64
    })
}

/// The sum of `words`, whole lines for every stream.
fn sum_of(words: &[u64]) -> u64 {
    vectorized(|| {
        let len = words.len() / STREAMS;
        let streams: [&[[u64; LINE]]; STREAMS] =
            std::array::from_fn(|i| words[i * len..][..len].as_chunks().0);
        let mut sums = [[0u64; LINE]; STREAMS];
        for at in 0..len / LINE {
            for i in 0..STREAMS {
                for lane in 0..LINE {
                    sums[i][lane] += streams[i][at][lane];
                }
            }
        }
        sums.iter().flatten().sum()
    })
}

/// Multiplies ones for a number of rounds and gives back the sum of the products: how many there were.
pub(crate) type Products = fn(usize) -> u64;

/// As many as sums of 16 bits hold.
const ROUNDS: usize = 1 << 13;

fn products_of_8_bits() -> Products {
    match Isa::best() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => peak::vpdpbusd,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => peak::vpmaddubsw,
        #[cfg(target_arch = "aarch64")]
        Isa::I8mm => peak::smmla,
        #[cfg(target_arch = "aarch64")]
        Isa::Dotprod => peak::sdot,
        _ => multiply_adds,
    }
}

fn ops_per_s(pool: &Pool, products: Products) -> f64 {
    best_rate(|| {
        let done = AtomicU64::new(0);
        pool.each(0..PARTS * pool.threads(), |_| {
            let some: u64 = (0..8).map(|_| products(ROUNDS)).sum();
            done.fetch_add(some, Ordering::Relaxed);
        });
        2.0 * done.into_inner() as f64
    })
}

/// [`Products`] in f32: twelve sums of eight lanes, as two units with a latency of four need eight at least and more do not fit the
/// registers.
fn multiply_adds(rounds: usize) -> u64 {
    #[inline(always)]
    fn chains(rounds: usize, fma: impl Fn(f32, f32, f32) -> f32) -> u64 {
        let (a, b) = black_box(([1.0f32; 8], [1.0f32; 8]));
        let mut sums = [[0.0f32; 8]; 12];
        for _ in 0..rounds {
            for sum in &mut sums {
                for lane in 0..8 {
                    sum[lane] = fma(a[lane], b[lane], sum[lane]);
                }
            }
        }
        sums.iter().flatten().map(|&sum| sum as u64).sum()
    }
    // Without an instruction for it, mul_add is a call.
    if Isa::best() == Isa::Generic {
        chains(rounds, |a, b, sum| a * b + sum)
    } else {
        vectorized(|| chains(rounds, f32::mul_add))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_is_of_the_lower_roof() {
        let roofs = Roofs { bytes_per_s: 10.0, ops_per_s: 40.0 };
        assert_eq!([1.0, 4.0, 100.0].map(|intensity| roofs.attainable(intensity)), [10.0, 40.0, 40.0]);
        // 2 operations per byte: 50 bytes take 5 seconds at least, 100 operations 2.5.
        let writing = Work { ops: 100.0, bytes: 50.0 };
        assert_eq!(roofs.fraction(writing, 10.0), 0.5);
        // 10 per byte: 100 operations take 2.5 seconds at least, 10 bytes one.
        let reading = Work { ops: 100.0, bytes: 10.0 };
        assert_eq!(roofs.fraction(reading, 10.0), 0.25);
        for work in [writing, reading] {
            let rate = work.ops / 10.0;
            assert_eq!(roofs.fraction(work, 10.0), rate / roofs.attainable(work.intensity()));
        }
    }

    #[test]
    fn loops_do_the_products_they_count() {
        assert_eq!(multiply_adds(ROUNDS), (12 * 8 * ROUNDS) as u64);
        #[cfg(target_arch = "x86_64")]
        let loops = [
            (Isa::Avx512, peak::vpdpbusd as Products, 12 * 64),
            (Isa::Avx2, peak::vpmaddubsw as Products, 12 * 32),
        ];
        #[cfg(target_arch = "aarch64")]
        let loops =
            [(Isa::Dotprod, peak::sdot as Products, 16 * 16), (Isa::I8mm, peak::smmla as Products, 16 * 32)];
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        for (isa, products, each) in loops.into_iter().filter(|row| row.0.available()) {
            assert_eq!(products(ROUNDS), (each * ROUNDS) as u64, "{isa}");
        }
        assert_eq!(sum_of(&[1; 5 * STREAMS * LINE]), 5 * (STREAMS * LINE) as u64);
    }

    #[test]
    fn this_machine_has_roofs() {
        let pool = Pool::new(2).unwrap();
        let roofs = Roofs::measure(&pool);
        assert!((1e7..1e14).contains(&roofs.bytes_per_s), "{roofs:?}");
        assert!((1e7..1e16).contains(&roofs.ops_per_s), "{roofs:?}");
        assert!((1e7..1e16).contains(&fma_ops_per_s(&pool)));
    }
}
