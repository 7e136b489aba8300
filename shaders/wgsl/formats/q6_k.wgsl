// Q6_K: (d * sc) * (q - 32). Planes: low 4 bits of q; high 2; sc, two i8 for each run; d, f32 for eight.
#import lib/bits

const HAS_OFFSET = false;
const LARGEST = 32.0;

fn quants(i: u32, planes: vec4<u32>) -> Run {
  return run6(weights[planes.x + i], word2(planes.y, i), 32.0);
}

fn scales(i: u32, planes: vec4<u32>) -> vec4<f32> {
  let d = bitcast<f32>(word(planes.w, i >> 3u));
  let sc = u16_at(planes.z, i);
  return vec4<f32>(d * signed(sc), 0.0, d * signed(sc >> 8u), 0.0);
}
