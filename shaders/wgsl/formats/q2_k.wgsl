// Q2_K: (d * sc) * q - (dmin * m). Planes: q in 2 bits; (sc, m), two bytes for each half run; (d, dmin), two f16 for eight runs.
#import lib/bits

const HAS_OFFSET = true;
const LARGEST = 3.0;

fn quants(i: u32, planes: vec4<u32>) -> Run {
  return run3(word2(planes.x, i), 0u, 0.0);
}

fn scales(i: u32, planes: vec4<u32>) -> vec4<f32> {
  let d = unpack2x16float(word(planes.z, i >> 3u));
  let s = vec4<f32>(unpack4xU8(word(planes.y, i)));
  return vec4<f32>(d.x * s.x, -(d.y * s.y), d.x * s.z, -(d.y * s.w));
}
