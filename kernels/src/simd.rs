//! Eight f32 lanes: the small vector interface that the float kernels in `generic/` are written over.
//!
//! The token of an instruction set implements it, so that holding a value of type `S: Simd` is the proof that its
//! instructions may run. [`Portable`] is plain arrays. Results of the two differ in rounding only: [`Simd::fma`]
//! rounds once on AVX2 and twice in the portable twin.

/// Lanes of a vector.
pub(crate) const LANES: usize = 8;

/// Eight lanes of f32.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// The vector.
    type V: Copy;

    fn splat(self, x: f32) -> Self::V;
    fn load(self, x: &[f32; LANES]) -> Self::V;
    fn store(self, v: Self::V, out: &mut [f32; LANES]);
    /// Exact.
    fn load_f16(self, x: &[u16; LANES]) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// To the nearest whole number.
    fn round(self, a: Self::V) -> Self::V;
    /// `2^n` for whole `n` in `-126..=127`; anything for other values.
    fn exp2_whole(self, n: Self::V) -> Self::V;
    /// Per lane, `a < b ? yes : no`; NaN compares false.
    fn select_lt(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;

    /// Sum of the lanes, always as `((0+4)+(2+6)) + ((1+5)+(3+7))`.
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        let mut x = [0.0; LANES];
        self.store(v, &mut x);
        ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))
    }

    /// Largest lane; unspecified where one is NaN.
    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        let mut x = [0.0; LANES];
        self.store(v, &mut x);
        x.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    /// Up to eight values, zeros after them.
    #[inline(always)]
    fn load_tail(self, x: &[f32]) -> Self::V {
        let mut padded = [0.0; LANES];
        padded[..x.len()].copy_from_slice(x);
        self.load(&padded)
    }

    /// The first `out.len()` lanes.
    #[inline(always)]
    fn store_tail(self, v: Self::V, out: &mut [f32]) {
        let mut padded = [0.0; LANES];
        self.store(v, &mut padded);
        out.copy_from_slice(&padded[..out.len()]);
    }
}

/// Arrays; the compiler makes of them what the target has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

macro_rules! lanes {
    ($f:expr) => {
        std::array::from_fn($f)
    };
}

impl Simd for Portable {
    type V = [f32; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::V {
        *x
    }
    #[inline(always)]
    fn store(self, v: Self::V, out: &mut [f32; LANES]) {
        *out = v;
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> Self::V {
        lanes!(|i| half::f16::from_bits(x[i]).to_f32_const())
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes!(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        lanes!(|i| a[i].round_ties_even())
    }
    #[inline(always)]
    fn exp2_whole(self, n: Self::V) -> Self::V {
        lanes!(|i| f32::from_bits(((n[i] as i32).wrapping_add(127) as u32) << 23))
    }
    #[inline(always)]
    fn select_lt(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V {
        lanes!(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
}
