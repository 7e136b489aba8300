// Q4_1: d * q + m. Planes: q in 4 bits; (d, m), two f16 for each run.
#import lib/bits

const HAS_OFFSET = true;
const LARGEST = 15.0;

fn quants(i: u32, planes: vec4<u32>) -> Run {
  return run4(weights[planes.x + i], 0.0);
}

fn scales(i: u32, planes: vec4<u32>) -> vec4<f32> {
  let dm = unpack2x16float(word(planes.y, i));
  return vec4<f32>(dm, dm);
}
