// Q5_0: d * (q - 16). Planes: low 4 bits of q; bit 4; d, f16 for each run.
#import lib/bits

const HAS_OFFSET = false;
const LARGEST = 16.0;

fn quants(i: u32, planes: vec4<u32>) -> Run {
  return run5(weights[planes.x + i], word(planes.y, i), 16.0);
}

fn scales(i: u32, planes: vec4<u32>) -> vec4<f32> {
  let d = f16_at(planes.z, i);
  return vec4<f32>(d, 0.0, d, 0.0);
}
