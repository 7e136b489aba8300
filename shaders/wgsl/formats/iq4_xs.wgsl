// IQ4_XS: (d * sc) * CODEBOOK[index]. Planes: index in 4 bits; sc, an i8 for each run; d, f32 for eight.
#import lib/codebook

const HAS_OFFSET = false;
const LARGEST = 127.0;

fn quants(i: u32, planes: vec4<u32>) -> Run {
  return coded(weights[planes.x + i]);
}

fn scales(i: u32, planes: vec4<u32>) -> vec4<f32> {
  let s = bitcast<f32>(word(planes.z, i >> 3u)) * signed(u8_at(planes.y, i));
  return vec4<f32>(s, 0.0, s, 0.0);
}
