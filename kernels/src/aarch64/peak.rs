//! Loops of nothing but 8-bit products: what the processor multiplies at best ([`crate::Roofs`]).
//!
//! Ones are multiplied with ones and every loop returns the sum of its products, so that it counts what was really done. Sixteen sums
//! hide a latency of four on four units.

use std::arch::aarch64::*;
use std::arch::asm;
use std::hint::black_box;

use crate::isa::{Dotprod, I8mm};

const SUMS: usize = 16;

/// A loop of `$instruction`, which adds products of 8-bit lanes to four sums of 32 bits.
macro_rules! products {
    ($(#[$doc:meta])* $name:ident, $token:ident, $features:literal, $instruction:literal) => {
        $(#[$doc])*
        pub(crate) fn $name(rounds: usize) -> u64 {
            #[target_feature(enable = $features)]
            fn compiled(_: $token, rounds: usize) -> u64 {
                let (a, b) = black_box((vdupq_n_s8(1), vdupq_n_s8(1)));
                let mut sums = [vdupq_n_s32(0); SUMS];
                for _ in 0..rounds {
                    for sum in &mut sums {
                        // SAFETY: the token proves that the instruction is there; it touches these registers only.
                        unsafe {
                            asm!(
                                concat!($instruction, " {0:v}.4s, {1:v}.16b, {2:v}.16b"),
                                inout(vreg) *sum, in(vreg) a, in(vreg) b,
                                options(pure, nomem, nostack, preserves_flags)
                            );
                        }
                    }
                }
                sums.into_iter().map(|sum| vaddvq_s32(sum) as u64).sum()
            }
            let token = $token::new().expect("invariant: called where the instruction is");
            // SAFETY: the token proves that the instructions are there.
            unsafe { compiled(token, rounds) }
        }
    };
}

products! {
    /// 16 products in an instruction, added in fours.
    sdot, Dotprod, "neon,dotprod", "sdot"
}
products! {
    /// 32 products in an instruction, added in eights.
    smmla, I8mm, "neon,i8mm", "smmla"
}
