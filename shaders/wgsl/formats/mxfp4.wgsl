// MXFP4: 2^(e - 128) * q, with q twice the E2M1 number of an index. Planes: index in 4 bits; e, a byte for each run.
#import lib/coded

const HAS_OFFSET = false;
const LARGEST = 12.0;

// Four indices, a byte each: sign, two bits of exponent, one of mantissa.
fn decoded(indices: u32) -> vec4<f32> {
  let i = unpack4xU8(indices);
  let e = (i >> vec4<u32>(1u)) & vec4<u32>(3u);
  let m = i & vec4<u32>(1u);
  let normal = (m | vec4<u32>(2u)) << (max(e, vec4<u32>(1u)) - vec4<u32>(1u));
  let size = vec4<f32>(select(normal, m, e == vec4<u32>(0u)));
  return select(size, -size, i >= vec4<u32>(8u));
}

fn quants(i: u32, planes: vec4<u32>) -> Run {
  return coded(weights[planes.x + i]);
}

fn scales(i: u32, planes: vec4<u32>) -> vec4<f32> {
  let e = u8_at(planes.y, i);
  // Below 2 the power is subnormal.
  let s = bitcast<f32>(select((e - 1u) << 23u, 0x00200000u << e, e < 2u));
  return vec4<f32>(s, 0.0, s, 0.0);
}
