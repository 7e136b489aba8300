// Q8_0: d * q. Planes: q as i8; d, f16 for each run.
#import lib/bits
#import lib/run8

const HAS_OFFSET = false;
const LARGEST = 128.0;

fn quants(i: u32, planes: vec4<u32>) -> Run {
  return run8(i, planes.x);
}

fn scales(i: u32, planes: vec4<u32>) -> vec4<f32> {
  let d = f16_at(planes.y, i);
  return vec4<f32>(d, 0.0, d, 0.0);
}
