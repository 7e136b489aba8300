// Matrix times many vectors: a workgroup of 16 x 16 invocations computes a tile of results. Steps of one run (32 columns): the
// weights of the tile's rows are dequantized once into workgroup memory, the activations of its tokens beside them; each
// invocation keeps its sums in registers, 4 x 4 of them or (ROWS64 = TOKENS64 = 2) 8 x 8.
//
//   left[k][row]  right[k][token]   so that a vec4 is four rows, or four tokens, of one column
//
// For every 16 products an invocation of the smaller tile reads two vec4s, one of the larger tile for 64 products four: half as much
// for each. It takes twice the workgroup memory and four times the registers. Which is faster only a device can say: on a software
// adapter (256 rows, 1024 columns, 256 tokens, a busy machine, 2026-11-23) 1.5 s and 0.9 s. Dropped: 64 invocations
// for the weights and 192 for the activations, which took as long and fits one tile only. The groups of four of an
// invocation are 64 apart, so that neighbours read neighbouring vec4s.
#import lib/panels

const WIDTH: u32 = 256u;

var<workgroup> left: array<vec4<f32>, 8u * ROWS>;
var<workgroup> right: array<vec4<f32>, 8u * TOKENS>;

fn row_factor(row: u32) -> f32 {
  return 1.0;
}

fn token_factor(token: u32) -> f32 {
  return 1.0;
}

fn put_left(k: u32, row: u32, w: vec4<f32>) {
#unroll I 4
  left[((k + I) * ROWS + row) >> 2u][row & 3u] = w[I];
#end
}

fn put_right(k: u32, token: u32, v: vec4<f32>) {
#unroll I 4
  right[((k + I) * TOKENS + token) >> 2u][token & 3u] = v[I];
#end
}

@compute @workgroup_size(WIDTH)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let row0 = (group.z * groups.x + group.x) * ROWS;
  let token0 = group.y * TOKENS;
  let r = local & 15u;
  let c = local >> 4u;
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
    for (var k = 0u; k < 32u; k++) {
#unroll R ROWS64
      let w_R = left[k * (ROWS / 4u) + r + R * 16u];
#end
#unroll V TOKENS64
      let v_V = right[k * (TOKENS / 4u) + c + V * 16u];
#unroll C 4
#unroll R ROWS64
      sum_V_C_R += w_R * v_V[C];
#end
#end
#end
    }
  }
#unroll V TOKENS64
#unroll C 4
  if token0 + (c + V * 16u) * 4u + C < args.tokens {
#unroll R ROWS64
    finish4(token0 + (c + V * 16u) * 4u + C, row0 + (r + R * 16u) * 4u, sum_V_C_R);
#end
  }
#end
#end
}
