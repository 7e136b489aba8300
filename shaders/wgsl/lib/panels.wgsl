// What a matrix-matrix kernel multiplies next, in workgroup memory: run `run` (32 columns) of the weights of its rows, dequantized, and
// of the activations of its tokens. The kernel has put_left and put_right, which store four columns of a row and of a token,
// row_factor and token_factor, which weights and activations are multiplied by, and as many invocations as WIDTH says.
#import lib/tile
#import FORMAT

fn fill_panels(row0: u32, token0: u32, run: u32, local: u32) {
  // Half a run of a row, then of a token, to an invocation.
  for (var i = local; i < 2u * ROWS; i += WIDTH) {
    let row = i % ROWS;
    let at = (args.first + min(row0 + row, args.rows - 1u)) * args.runs + run;
    let w = quants(at, planes());
    let s = scales(at, planes()) * row_factor(row);
    if i < ROWS {
      put_left(0u, row, s.x * w.a + s.y);
      put_left(4u, row, s.x * w.b + s.y);
      put_left(8u, row, s.x * w.c + s.y);
      put_left(12u, row, s.x * w.d + s.y);
    } else {
      put_left(16u, row, s.z * w.e + s.w);
      put_left(20u, row, s.z * w.f + s.w);
      put_left(24u, row, s.z * w.g + s.w);
      put_left(28u, row, s.z * w.h + s.w);
    }
  }
  for (var i = local; i < 2u * TOKENS; i += WIDTH) {
    let token = i % TOKENS;
    let half = i / TOKENS * 4u;
    let x = (args.x + min(token0 + token, args.tokens - 1u) * args.x_stride) >> 2u;
    let factor = token_factor(token);
#unroll I 4
    put_right((half + I) * 4u, token, arena[x + run * 8u + half + I] * factor);
#end
  }
}
