// Matrix times many vectors: a workgroup of 16 x 16 invocations computes 64 rows for 64 tokens. Steps of one run (32 columns):
// the weights of 64 rows are dequantized once into workgroup memory, the activations of 64 tokens beside them; each
// invocation keeps 4 x 4 sums in registers.
//
//   left[k][row]  right[k][token]   so that a vec4 is four rows, or four tokens, of one column
#import lib/matmul
#import FORMAT

var<workgroup> left: array<vec4<f32>, 512>;
var<workgroup> right: array<vec4<f32>, 512>;

fn put_left(k: u32, row: u32, w: vec4<f32>, scale: f32, offset: f32) {
  let v = scale * w + offset;
  left[k * 16u + (row >> 2u)][row & 3u] = v.x;
  left[k * 16u + 16u + (row >> 2u)][row & 3u] = v.y;
  left[k * 16u + 32u + (row >> 2u)][row & 3u] = v.z;
  left[k * 16u + 48u + (row >> 2u)][row & 3u] = v.w;
}

fn put_right(k: u32, token: u32, v: vec4<f32>) {
  right[k * 16u + (token >> 2u)][token & 3u] = v.x;
  right[k * 16u + 16u + (token >> 2u)][token & 3u] = v.y;
  right[k * 16u + 32u + (token >> 2u)][token & 3u] = v.z;
  right[k * 16u + 48u + (token >> 2u)][token & 3u] = v.w;
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let row0 = (group.z * groups.x + group.x) * 64u;
  let token0 = group.y * 64u;
  let r = local & 15u;
  let c = local >> 4u;
  var sum_0 = vec4<f32>(0.0);
  var sum_1 = vec4<f32>(0.0);
  var sum_2 = vec4<f32>(0.0);
  var sum_3 = vec4<f32>(0.0);
  let row = min(row0 + (local & 63u), args.rows - 1u);
  let token = min(token0 + (local & 63u), args.tokens - 1u);
  let x = (args.x + token * args.x_stride) >> 2u;
  for (var run = 0u; run < args.runs; run++) {
    workgroupBarrier();
    if local < 64u {
      let i = (args.first + row) * args.runs + run;
      let w = quants(i, planes());
      let s = scales(i, planes());
      put_left(0u, local, w.a, s.x, s.y);
      put_left(4u, local, w.b, s.x, s.y);
      put_left(8u, local, w.c, s.x, s.y);
      put_left(12u, local, w.d, s.x, s.y);
      put_left(16u, local, w.e, s.z, s.w);
      put_left(20u, local, w.f, s.z, s.w);
      put_left(24u, local, w.g, s.z, s.w);
      put_left(28u, local, w.h, s.z, s.w);
    } else {
      // 192 invocations bring 8 vec4s of each of 64 tokens.
      for (var k = (local >> 6u) - 1u; k < 8u; k += 3u) {
        put_right(k * 4u, local & 63u, arena[x + run * 8u + k]);
      }
    }
    workgroupBarrier();
    for (var k = 0u; k < 32u; k++) {
      let w = left[k * 16u + r];
      let v = right[k * 16u + c];
      sum_0 += w * v.x;
      sum_1 += w * v.y;
      sum_2 += w * v.z;
      sum_3 += w * v.w;
    }
  }
#unroll T 4
  if token0 + c * 4u + T < args.tokens {
#unroll R 4
    if row0 + r * 4u + R < args.rows {
      finish(token0 + c * 4u + T, row0 + r * 4u + R, sum_T[R]);
    }
#end
  }
#end
}
