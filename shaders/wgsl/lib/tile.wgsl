// The tile of results that a workgroup of a matrix-matrix kernel computes: ROWS rows for TOKENS tokens.
#import lib/matmul

const ROWS: u32 = 64u * ROWS64;
const TOKENS: u32 = 64u * TOKENS64;

// Results of four rows for token `t`.
fn finish4(t: u32, row: u32, sums: vec4<f32>) {
  for (var i = 0u; i < min(4u, args.rows - min(row, args.rows)); i++) {
    finish(t, row + i, sums[i]);
  }
}
