// IQ4_NL: d * CODEBOOK[index]. Planes: index in 4 bits; d, f16 for each run.
#import lib/codebook

const HAS_OFFSET = false;
const LARGEST = 127.0;

fn quants(i: u32, planes: vec4<u32>) -> Run {
  return coded(weights[planes.x + i]);
}

fn scales(i: u32, planes: vec4<u32>) -> vec4<f32> {
  let d = f16_at(planes.y, i);
  return vec4<f32>(d, 0.0, d, 0.0);
}
