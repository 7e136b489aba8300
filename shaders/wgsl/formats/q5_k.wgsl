// Q5_K: (d * sc) * q - (dmin * m). Planes: low 4 bits of q; bit 4; (sc, m), two bytes for each run; (d, dmin), two f16 for eight.
#import lib/bits

const HAS_OFFSET = true;
const LARGEST = 31.0;

fn quants(i: u32, planes: vec4<u32>) -> Run {
  return run5(weights[planes.x + i], word(planes.y, i), 0.0);
}

fn scales(i: u32, planes: vec4<u32>) -> vec4<f32> {
  let d = unpack2x16float(word(planes.w, i >> 3u));
  let sm = u16_at(planes.z, i);
  let s = vec2<f32>(d.x * f32(sm & 0xffu), -(d.y * f32(sm >> 8u)));
  return vec4<f32>(s, s);
}
