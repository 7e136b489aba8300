// Q4_0: d * (q - 8). Planes: q in 4 bits; d, f16 for each run.
#import lib/bits

const HAS_OFFSET = false;
const LARGEST = 8.0;

fn quants(i: u32, planes: vec4<u32>) -> Run {
  return run4(weights[planes.x + i], 8.0);
}

fn scales(i: u32, planes: vec4<u32>) -> vec4<f32> {
  let d = f16_at(planes.y, i);
  return vec4<f32>(d, 0.0, d, 0.0);
}
