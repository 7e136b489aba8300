//! Activations in 16 bits, the right-hand side of the quantized matrix kernels.
//!
//! ```text
//! x[c] = scale[c / 256] * q[c],   scale = max |x| of the group / 32639,   q: i16, zeros after the last column
//! q = 256 * high + low,           high: -127 ..= 127, low: -128 ..= 127
//! ```
//! 16 bits and not 8: `vpmaddwd` makes as many products per instruction as the 8-bit `vpmaddubsw` + `vpmaddwd` pair,
//! so on AVX2 the precision is free, but where sums of 8-bit products fit 16 bits (coarse tokens). A group of 256 spans the super-blocks of the K-quants. The error of one value is at most `max / 65278`: even where one outlier is 300 times
//! the group's root mean square it is 0.5% of that root mean square, what 8 bits per 32 values have without outliers.
//!
//! Coarse tokens ([`cchaha_plan::Batch::coarse`]) have 8 bits where a kernel can make use of that: per run of 32 values
//! `x[c] = scale[c / 32] * q[c]`, `scale = max |x| of the run / 127`.
//!
//! A group (or run) with an infinity or NaN has scale NaN and q = 0, so every product it enters is NaN. One whose largest
//! value is below 1e-30 counts as zero.

/// Values that share a scale.
pub(crate) const GROUP: usize = 256;

/// The largest `|q|`: 127 * 256 + 127, whose `high` is an i8.
pub(crate) const LARGEST: i16 = 32639;

/// Below this a group is zero: its inverse scale would overflow.
const TINY: f32 = 1e-30;

/// The largest `|q|` of a coarse token.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86-64 kernels read coarse tokens"))]
pub(crate) const LARGEST_COARSE: i16 = 127;

/// The scale of a group whose largest size is `largest` and largest `|q|` is `most`, and its inverse; the inverse is 0 where
/// every `q` is.
pub(crate) fn scale_of(largest: f32, most: i16) -> (f32, f32) {
    let most = f32::from(most);
    match largest {
        largest if !largest.is_finite() => (f32::NAN, 0.0),
        largest if largest < TINY => (0.0, 0.0),
        largest => (largest / most, most / largest),
    }
}

/// A cache line, of which panels of weights are made.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [i16; 32]);

/// The same 32 values as bytes: `high`, then `low`. On AVX2 spread as the halves are, else in order.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Planes(pub(crate) [[i8; 32]; 2]);

/// Which of a group's values stand where in its halves, planes and `sums16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Even and odd values, run by run: AArch64.
    #[cfg_attr(target_arch = "x86_64", expect(dead_code, reason = "it is AArch64's"))]
    Runs,
    /// Even and odd values, runs side by side, and so the planes: AVX2.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "it is x86-64's"))]
    Words,
    /// Upper and lower bytes, runs side by side: AVX-512.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "it is x86-64's"))]
    Bytes,
}

/// Lines in a group.
pub(crate) const GROUP_LINES: usize = GROUP / 32;

/// One half of a group of one token as kernels for many tokens stream it, 256 bytes: the even or the odd values as i16, 32 bytes of every
/// run; or, spread over lanes, the upper or the lower bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Half(pub(crate) [[u8; 32]; GROUP_LINES]);

/// Of tokens or of one token: the first halves of groups, and the second.
pub(crate) type Halves<'a> = [&'a mut [Half]; 2];

/// A group of one token but for its halves, which stand together: with 640 other bytes between every 512 the prefetcher lost its way (two
/// thirds of the speed at 19 groups a row).
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Group {
    /// The values, for kernels that multiply bytes.
    pub(crate) planes: [Planes; GROUP_LINES],
    /// Sums of 32 `q` each.
    pub(crate) sums32: [f32; 8],
    /// Sums of 16 `q` each.
    pub(crate) sums16: [f32; 16],
    /// One unit of `q`: of a coarse token one for each run of 32, else eight times the same.
    pub(crate) scales: [f32; 8],
}

impl Group {
    const ZERO: Group = Group {
        planes: [Planes([[0; 32]; 2]); GROUP_LINES],
        sums32: [0.0; 8],
        sums16: [0.0; 16],
        scales: [0.0; 8],
    };
}

/// The 16-bit twin of a buffer.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    /// `[tokens, groups]`, `groups` as of the last call of [`Activations::shape`].
    pub(crate) groups: Vec<Group>,
    /// The halves of those: all first ones, which are all of a coarse token, and all second ones. Side by side, AVX-512 read prompts at
    /// 0.9 of the speed (Zen 5): half of what it streamed was not used.
    pub(crate) halves: [Vec<Half>; 2],
    /// Groups per token.
    pub(crate) per_token: usize,
    /// Which tokens are coarse.
    pub(crate) coarse: Vec<bool>,
}

impl Activations {
    /// Bytes for `values` values in `tokens` rows of at most `cols`.
    pub(crate) fn bytes(tokens: usize, cols: usize) -> usize {
        tokens * cols.div_ceil(GROUP) * (size_of::<Group>() + 2 * size_of::<Half>())
    }

    /// Room for `tokens` rows of at most `cols` values.
    pub(crate) fn new(tokens: usize, cols: usize) -> Activations {
        let groups = tokens * cols.div_ceil(GROUP);
        Activations {
            groups: vec![Group::ZERO; groups],
            halves: [0; 2].map(|_| vec![Half([[0; 32]; GROUP_LINES]); groups]),
            per_token: 0,
            coarse: vec![false; tokens],
        }
    }

    /// Takes the shape `[tokens, cols]` and gives its halves and groups, `per_token` for every token.
    pub(crate) fn shape(&mut self, tokens: usize, cols: usize) -> (Halves<'_>, &mut [Group]) {
        self.per_token = cols.div_ceil(GROUP);
        let n = tokens * self.per_token;
        (self.halves.each_mut().map(|halves| &mut halves[..n]), &mut self.groups[..n])
    }
}
