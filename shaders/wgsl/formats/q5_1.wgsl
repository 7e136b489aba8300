// Q5_1: d * q + m. Planes: low 4 bits of q; bit 4; (d, m), two f16 for each run.
#import lib/bits

const HAS_OFFSET = true;
const LARGEST = 31.0;

fn quants(i: u32, planes: vec4<u32>) -> Run {
  return run5(weights[planes.x + i], word(planes.y, i), 0.0);
}

fn scales(i: u32, planes: vec4<u32>) -> vec4<f32> {
  let dm = unpack2x16float(word(planes.z, i));
  return vec4<f32>(dm, dm);
}
