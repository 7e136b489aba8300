// gemm.wgsl with products of half floats: two of them are one instruction on most graphics hardware, and the panels take half the
// workgroup memory. Sums of 16 columns are half floats too, those of all f32.
//
// A result is off by at most 20 half-float roundings (2^-11) of the sizes of its terms: four for the operands, which conversions
// may cut off, and 16 for the sum. On normal random values (4096 columns) that was 7e-4 of the result's rms, where activations of
// 16 bits have 2e-5 and those of 8 bits, which other engines multiply, have 5e-3. So these rows stand last: the
// choice by time may take them, and never where arithmetic is to be exact.
//
// Sums of 16, half a run: longer ones are less exact, of shorter ones the conversions to f32 eat up the gain. Scales of each half run
// instead of those of lib/narrow would spare the first pass over activations and scales, for a multiplication and a
// conversion more for every result and half run. No gemv like this: with a few tokens a kernel waits for the bytes
// of the weights, and half floats are none fewer.
#import lib/narrow

var<workgroup> left: array<vec4<f16>, 8u * ROWS>;
var<workgroup> right: array<vec4<f16>, 8u * TOKENS>;

fn put_left(k: u32, row: u32, w: vec4<f32>) {
  let v = vec4<f16>(w);
#unroll I 4
  left[((k + I) * ROWS + row) >> 2u][row & 3u] = v[I];
#end
}

fn put_right(k: u32, token: u32, x: vec4<f32>) {
  let v = vec4<f16>(x);
#unroll I 4
  right[((k + I) * TOKENS + token) >> 2u][token & 3u] = v[I];
#end
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let row0 = (group.z * groups.x + group.x) * ROWS;
  let token0 = group.y * TOKENS;
  let r = local & 15u;
  let c = local >> 4u;
  measure(row0, token0, local);
#unroll V TOKENS64
#unroll C 4
#unroll R ROWS64
  var sum_V_C_R = vec4<f32>(0.0);
#end
#end
#end
  for (var run = 0u; run < args.runs; run++) {
    workgroupBarrier();
    fill_panels(row0, token0, run, local);
    workgroupBarrier();
    for (var first = 0u; first < 32u; first += 16u) {
#unroll V TOKENS64
#unroll C 4
#unroll R ROWS64
      var part_V_C_R = vec4<f16>(0.0h);
#end
#end
#end
      for (var k = first; k < first + 16u; k++) {
#unroll R ROWS64
        let w_R = left[k * (ROWS / 4u) + r + R * 16u];
#end
#unroll V TOKENS64
        let v_V = right[k * (TOKENS / 4u) + c + V * 16u];
#unroll C 4
#unroll R ROWS64
        part_V_C_R += w_R * v_V[C];
#end
#end
#end
      }
#unroll V TOKENS64
#unroll C 4
#unroll R ROWS64
      sum_V_C_R += vec4<f32>(part_V_C_R);
#end
#end
#end
    }
  }
#unroll R ROWS64
  var wide_R = vec4<f32>(0.0);
#unroll I 4
  wide_R[I] = widening(atomicLoad(&row_sizes[(r + R * 16u) * 4u + I]));
#end
#end
#unroll V TOKENS64
#unroll C 4
  let t_V_C = (c + V * 16u) * 4u + C;
  if token0 + t_V_C < args.tokens {
    let wide = widening(atomicLoad(&token_sizes[t_V_C]));
#unroll R ROWS64
    finish4(token0 + t_V_C, row0 + (r + R * 16u) * 4u, sum_V_C_R * wide_R * wide);
#end
  }
#end
#end
}
