// Activations as integers of two bytes, as lib/packed reads them:
//
//   q = round(x / scale),   scale = max |x| of 256 values / 32639,   q = 256 * upper + lower
//
// One invocation for each run of 32; the eight of a group of 256 share its largest value through workgroup memory. 32639 is the
// largest q whose upper byte, rounded to the nearest, fits 8 bits.
#import lib/frame

override WIDTH: u32 = 64u;

struct Args {
  x: u32,
  x_stride: u32,
  out: u32,
  out_stride: u32,
  runs: u32,
}

var<immediate> args: Args;

var<workgroup> largest: array<f32, WIDTH>;

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let run = group.x * WIDTH + local;
  let x = ((args.x + group.y * args.x_stride) >> 2u) + min(run, args.runs - 1u) * 8u;
#unroll I 8
  let x_I = arena[x + I];
#end
  var size = vec4<f32>(0.0);
#unroll I 8
  size = max(size, abs(x_I));
#end
  largest[local] = select(0.0, max(max(size.x, size.y), max(size.z, size.w)), run < args.runs);
  workgroupBarrier();
  var most = 0.0;
#unroll I 8
  most = max(most, largest[(local & ~7u) + I]);
#end
  if run >= args.runs {
    return;
  }
  // Smaller groups count as zero: their inverse would not be finite.
  let some = most >= 1e-30;
  let inverse = select(0.0, 32639.0 / most, some);
  let scale = select(0.0, most / 32639.0, some);
  let at = ((args.out + group.y * args.out_stride) >> 2u) + run * 8u;
#unroll I 8
  let q_I = vec4<i32>(round(x_I * inverse));
  let upper_I = (q_I + vec4<i32>(128)) >> vec4<u32>(8u);
  let lower_I = q_I - upper_I * 256;
#end
  let first = (q_0 + q_1) + (q_2 + q_3);
  let second = (q_4 + q_5) + (q_6 + q_7);
  arena[at] = bitcast<vec4<f32>>(vec4<u32>(pack4xI8(upper_0), pack4xI8(upper_1), pack4xI8(upper_2), pack4xI8(upper_3)));
  arena[at + 1u] = bitcast<vec4<f32>>(vec4<u32>(pack4xI8(upper_4), pack4xI8(upper_5), pack4xI8(upper_6), pack4xI8(upper_7)));
  arena[at + 2u] = bitcast<vec4<f32>>(vec4<u32>(pack4xI8(lower_0), pack4xI8(lower_1), pack4xI8(lower_2), pack4xI8(lower_3)));
  arena[at + 3u] = bitcast<vec4<f32>>(vec4<u32>(pack4xI8(lower_4), pack4xI8(lower_5), pack4xI8(lower_6), pack4xI8(lower_7)));
  arena[at + 4u] = vec4<f32>(
    scale,
    f32(first.x + first.y + first.z + first.w),
    f32(second.x + second.y + second.z + second.w),
    0.0,
  );
}
