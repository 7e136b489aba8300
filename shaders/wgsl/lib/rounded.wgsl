// Activations as integers of two bytes, as lib/packed reads them, in the twin of the buffer that holds them as f32:
//
//   q = round(x / scale),   scale = max |x| of a run / 32639,   q = 256 * upper + lower
//
// A run is in five vec4s of the eight it takes as f32: upper bytes (2), lower bytes (2), [scale, sum of the first 16 integers,
// of the second 16, 0]. 32639 is the largest q whose upper byte, rounded to the nearest, fits 8 bits.
#import lib/frame

// Rounds the run at vec4 `x` of the arena.
fn round_run(x: u32, twin: u32) {
#unroll I 8
  let x_I = arena[x + I];
#end
  var size = vec4<f32>(0.0);
#unroll I 8
  size = max(size, abs(x_I));
#end
  let most = max(max(size.x, size.y), max(size.z, size.w));
  // Smaller runs count as zero: their inverse would not be finite.
  let some = most >= 1e-30;
  let inverse = select(0.0, 32639.0 / most, some);
  let scale = select(0.0, most / 32639.0, some);
#unroll I 8
  let q_I = vec4<i32>(round(x_I * inverse));
  let upper_I = (q_I + vec4<i32>(128)) >> vec4<u32>(8u);
  let lower_I = q_I - upper_I * 256;
#end
  let first = (q_0 + q_1) + (q_2 + q_3);
  let second = (q_4 + q_5) + (q_6 + q_7);
  arena[twin] = bitcast<vec4<f32>>(vec4<u32>(pack4xI8(upper_0), pack4xI8(upper_1), pack4xI8(upper_2), pack4xI8(upper_3)));
  arena[twin + 1u] = bitcast<vec4<f32>>(vec4<u32>(pack4xI8(upper_4), pack4xI8(upper_5), pack4xI8(upper_6), pack4xI8(upper_7)));
  arena[twin + 2u] = bitcast<vec4<f32>>(vec4<u32>(pack4xI8(lower_0), pack4xI8(lower_1), pack4xI8(lower_2), pack4xI8(lower_3)));
  arena[twin + 3u] = bitcast<vec4<f32>>(vec4<u32>(pack4xI8(lower_4), pack4xI8(lower_5), pack4xI8(lower_6), pack4xI8(lower_7)));
  arena[twin + 4u] = vec4<f32>(
    scale,
    f32(first.x + first.y + first.z + first.w),
    f32(second.x + second.y + second.z + second.w),
    0.0,
  );
}

// At the end of a kernel whose workgroup wrote whole runs of a row, `runs` of them from float `at` behind `out`: rounds them to the
// same place behind `twin`. Nothing where that is NONE. All invocations of the workgroup come here.
fn round_written(out: u32, twin: u32, at: u32, runs: u32, local: u32, width: u32) {
  if twin == NONE {
    return;
  }
  storageBarrier();
  for (var run = local; run < runs; run += width) {
    round_run(((out + at) >> 2u) + run * 8u, ((twin + at) >> 2u) + run * 8u);
  }
}
