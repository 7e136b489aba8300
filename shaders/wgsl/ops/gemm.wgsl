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
#import lib/tile
#import FORMAT

var<workgroup> left: array<vec4<f32>, 8u * ROWS>;
var<workgroup> right: array<vec4<f32>, 8u * TOKENS>;

fn put_left(k: u32, row: u32, w: vec4<f32>, scale: f32, offset: f32) {
  let v = scale * w + offset;
#unroll I 4
  left[((k + I) * ROWS + row) >> 2u][row & 3u] = v[I];
#end
}

fn put_right(k: u32, token: u32, v: vec4<f32>) {
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
#unroll V TOKENS64
#unroll C 4
#unroll R ROWS64
  var sum_V_C_R = vec4<f32>(0.0);
#end
#end
#end
  for (var run = 0u; run < args.runs; run++) {
    workgroupBarrier();
    // Half a run of a row, then of a token, to an invocation.
    for (var i = local; i < 2u * ROWS; i += 256u) {
      let row = i % ROWS;
      let at = (args.first + min(row0 + row, args.rows - 1u)) * args.runs + run;
      let w = quants(at, planes());
      let s = scales(at, planes());
      if i < ROWS {
        put_left(0u, row, w.a, s.x, s.y);
        put_left(4u, row, w.b, s.x, s.y);
        put_left(8u, row, w.c, s.x, s.y);
        put_left(12u, row, w.d, s.x, s.y);
      } else {
        put_left(16u, row, w.e, s.z, s.w);
        put_left(20u, row, w.f, s.z, s.w);
        put_left(24u, row, w.g, s.z, s.w);
        put_left(28u, row, w.h, s.z, s.w);
      }
    }
    for (var i = local; i < 2u * TOKENS; i += 256u) {
      let token = i % TOKENS;
      let half = i / TOKENS * 4u;
      let x = (args.x + min(token0 + token, args.tokens - 1u) * args.x_stride) >> 2u;
#unroll I 4
      put_right((half + I) * 4u, token, arena[x + run * 8u + half + I]);
#end
    }
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
