// Matrix times many vectors on the units for products of small matrices ("tensor cores", "matrix cores", simdgroup matrices): half
// floats in, f32 sums. A workgroup computes a tile of ROWS x TOKENS results, a subgroup a block of 32 x 32 of it: ACROSS x ACROSS
// matrices of SIDE x SIDE in registers. Steps of one run (32 columns): weights are dequantized and activations narrowed into
// two panels of workgroup memory, and every subgroup multiplies its 32 tokens of one with its 32 rows of the other.
//
//   blocks of 128 rows and 64 tokens   0 1 2 3   rows ->
//                                      4 5 6 7
//
// A workgroup has as many invocations as the smallest subgroup needs to have one for every block. Where subgroups are larger
// than that, each computes several blocks, one after the other.
//
// A result is off by at most four half-float roundings (2^-11) of the sizes of its terms, and the f32 sum: 3e-4 of the
// result's rms on normal random values (4096 columns), half of gemm_f16. Nothing is measured yet: no device with such
// units could be reached. The tests run this file with lib/coop_plain, and check that the instructions are
// in its SPIR-V and its MSL; naga writes no HLSL of them. In the SPIR-V naga 30 does not say that workgroup memory is shared, which
// the memory model of these instructions wants to hear (gfx-rs/wgpu #8805): drivers may share it all the same, and
// the check at load would notice one that does not.
#import lib/narrow
#import TILES

const BLOCK: u32 = 32u;
const ROW_BLOCKS: u32 = ROWS / BLOCK;
const BLOCKS: u32 = ROW_BLOCKS * (TOKENS / BLOCK);
const SIDE: u32 = BLOCK / ACROSS;

// Half floats from one token, or one row of weights, to the next in its panel: 32 columns and 8 that nobody reads, so that rows
// begin in different banks of workgroup memory, and at whole 16 bytes, which the instructions ask for.
const STRIDE: u32 = 40u;

var<workgroup> token_panel: array<f16, TOKENS * STRIDE>;
var<workgroup> row_panel: array<f16, ROWS * STRIDE>;
// SIDE tokens of each block, a row for each.
var<workgroup> results: array<f32, BLOCKS * SIDE * BLOCK>;

fn put_left(k: u32, row: u32, w: vec4<f32>) {
  let half = vec4<f16>(w);
#unroll I 4
  row_panel[row * STRIDE + k + I] = half[I];
#end
}

fn put_right(k: u32, token: u32, x: vec4<f32>) {
  let half = vec4<f16>(x);
#unroll I 4
  token_panel[token * STRIDE + k + I] = half[I];
#end
}

@compute @workgroup_size(WIDTH)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(num_subgroups) subgroups: u32,
  @builtin(subgroup_invocation_id) lane: u32,
  @builtin(subgroup_size) lanes: u32,
) {
  let row0 = (group.z * groups.x + group.x) * ROWS;
  let token0 = group.y * TOKENS;
  measure(row0, token0, local);
  for (var first = 0u; first < BLOCKS; first += subgroups) {
    begin(lane, lanes);
    let block = min(first + subgroup, BLOCKS - 1u);
    let block_row = block % ROW_BLOCKS * BLOCK;
    let block_token = block / ROW_BLOCKS * BLOCK;
    let result = block * SIDE * BLOCK;
    for (var i = lane; i < SIDE * BLOCK; i += lanes) {
      results[result + i] = 0.0;
    }
    workgroupBarrier();
#unroll T ACROSS
#unroll R ACROSS
    var sum_T_R = result_tile(result + R * SIDE);
#end
#end
    for (var run = 0u; run < args.runs; run++) {
      workgroupBarrier();
      fill_panels(row0, token0, run, local);
      workgroupBarrier();
      for (var k = 0u; k < 32u; k += SIDE) {
#unroll T ACROSS
        let a_T = token_tile((block_token + T * SIDE) * STRIDE + k);
        let b_T = row_tile((block_row + T * SIDE) * STRIDE + k);
#end
#unroll T ACROSS
#unroll R ACROSS
        sum_T_R = multiply_add(a_T, b_R, sum_T_R);
#end
#end
      }
    }
#unroll T ACROSS
    workgroupBarrier();
#unroll R ACROSS
    store_result(sum_T_R, result + R * SIDE);
#end
    workgroupBarrier();
    if first + subgroup < BLOCKS {
      for (var i = lane; i < SIDE * BLOCK; i += lanes) {
        let t = block_token + T * SIDE + i / BLOCK;
        let row = block_row + i % BLOCK;
        if token0 + t < args.tokens && row0 + row < args.rows {
          let of_row = widening(atomicLoad(&row_sizes[row]));
          let of_token = widening(atomicLoad(&token_sizes[t]));
          finish(token0 + t, row0 + row, results[result + i] * of_row * of_token);
        }
      }
    }
#end
    workgroupBarrier();
  }
}
