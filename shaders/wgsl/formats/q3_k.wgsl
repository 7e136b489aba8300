// Q3_K: (d * sc) * (q - 4). Planes: low 2 bits of q; bit 2; sc, two i8 for each run; d, f32 for eight.
#import lib/bits

const HAS_OFFSET = false;
const LARGEST = 4.0;

fn quants(i: u32, planes: vec4<u32>) -> Run {
  return run3(word2(planes.x, i), word(planes.y, i), 4.0);
}

fn scales(i: u32, planes: vec4<u32>) -> vec4<f32> {
  let d = bitcast<f32>(word(planes.w, i >> 3u));
  let sc = u16_at(planes.z, i);
  return vec4<f32>(d * signed(sc), 0.0, d * signed(sc >> 8u), 0.0);
}
