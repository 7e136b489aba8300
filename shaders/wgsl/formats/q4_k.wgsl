// Q4_K: (d * sc) * q - (dmin * m). Planes: q in 4 bits; (sc, m), two bytes for each run; (d, dmin), two f16 for eight.
#import lib/bits

const HAS_OFFSET = true;
const LARGEST = 15.0;

fn quants(i: u32, planes: vec4<u32>) -> Run {
  return run4(weights[planes.x + i], 0.0);
}

fn scales(i: u32, planes: vec4<u32>) -> vec4<f32> {
  let d = unpack2x16float(word(planes.z, i >> 3u));
  let sm = u16_at(planes.y, i);
  let s = vec2<f32>(d.x * f32(sm & 0xffu), -(d.y * f32(sm >> 8u)));
  return vec4<f32>(s, s);
}
