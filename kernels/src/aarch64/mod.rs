//! Kernels for AArch64.
//!
//! | folder | instructions | machines |
//! |---|---|---|
//! | `neon` | the baseline | all |
//! | `dotprod` | `sdot`: sixteen 8-bit products | Apple A13 and M1, Cortex-A76, Neoverse N1 on |
//! | `i8mm` | `smmla`: thirty-two 8-bit products | Apple A15 and M2, Cortex-A510, -A710 and -X2, Neoverse N2 and V1 on |
//!
//! From Arm's manuals of the cores; for Apple from LLVM's list of processors (`AArch64Processors.td`): `apple-a13` is an Armv8.4,
//! which includes dotprod, and `apple-a15`, as the M2 is one, names i8mm first.
#![allow(unsafe_code)] // Vector intrinsics read raw pointers and may run only where the CPU has them.

pub(crate) mod dotprod;
pub(crate) mod i8mm;
pub(crate) mod neon;

#[cfg(test)]
mod tests {
    use crate::activations::Activations;
    use crate::isa::Isa;
    use crate::pool::Tile;
    use crate::product::{Product, Residual};
    use crate::registry::{Kernel, MatMul, Run, registry};
    use crate::scratch::{NO_LINE, Panel, Scratch};

    const ROWS: usize = 21;
    const TOKENS: usize = 11;

    fn matmul(kernel: &Kernel) -> MatMul {
        let Run::MatMul(matmul) = kernel.run else { panic!("{} multiplies matrices", kernel.name) };
        matmul
    }

    /// `x` holds whole rows of `cols` values.
    fn product(kernel: &Kernel, weights: &[u8], x: &[f32], cols: usize) -> Vec<f32> {
        let (matmul, format, tokens) = (matmul(kernel), kernel.formats[0], x.len() / cols);
        let mut quantized = Activations::new(tokens, cols);
        let (lines, groups) = quantized.shape(tokens, cols);
        let per_token = groups.len() / tokens;
        let rows = lines.chunks_exact_mut(per_token).zip(groups.chunks_exact_mut(per_token));
        for (x, (lines, groups)) in x.chunks_exact(cols).zip(rows) {
            matmul.quantize.expect("rows of these sets quantize")(x, lines, groups);
        }
        let p = Product {
            weights,
            format,
            rows: ROWS,
            cols,
            row_bytes: format.row_bytes(cols).expect("whole blocks"),
            tokens,
            x,
            quantized: &quantized,
            bias: None,
            residual: Residual::None,
        };
        let mut out = vec![f32::NAN; tokens * ROWS];
        let lines = vec![NO_LINE; Panel::of(cols).lines];
        let mut scratch = Scratch { lines, ..Scratch::default() };
        (matmul.product)(&p, &mut scratch, &mut Tile::whole(&mut out, tokens, ROWS));
        out
    }

    #[test]
    fn one_token_and_many_have_the_same_bits_wherever_a_row_ends() {
        let mut state = 1u32;
        let mut bits = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        let sets = [Isa::Dotprod, Isa::I8mm];
        let rows = registry().iter().filter(|row| sets.contains(&row.isa) && row.isa.available());
        for kernel in rows {
            let format = kernel.formats[0];
            for cols in (1..=18).map(|n| 32 * n).filter(|cols| cols % format.block_len() == 0) {
                let n = ROWS * format.row_bytes(cols).expect("whole blocks");
                // Bytes below 0x40: whatever they are scales or values of, they are finite and not large.
                let weights: Vec<u8> = (0..n).map(|_| (bits() >> 18) as u8).collect();
                let x: Vec<f32> = (0..TOKENS * cols).map(|_| bits() as f32 / 8_388_608.0 - 1.0).collect();
                let together = product(kernel, &weights, &x, cols);
                assert!(together.iter().any(|y| *y != 0.0));
                for (t, x) in x.chunks_exact(cols).enumerate() {
                    let alone = product(kernel, &weights, x, cols);
                    for (r, (a, b)) in alone.iter().zip(&together[t * ROWS..]).enumerate() {
                        assert_eq!(
                            a.to_bits(),
                            b.to_bits(),
                            "{}: row {r}, token {t}, {cols} columns",
                            kernel.name
                        );
                    }
                }
            }
        }
    }
}
