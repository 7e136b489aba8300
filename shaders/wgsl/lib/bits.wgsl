// Integers of a few bits. A run lies in words so that a mask and a shift give the bytes of four neighbouring values:
//
//   4 bits   word w, byte j   low nibble: value 8 w + j, high nibble: value 8 w + 4 + j
//   2 bits   word w, byte j   bits 2 k, 2 k + 1: value 16 w + 4 k + j
//   1 bit    byte j           bit k: value 4 k + j
#import lib/run

fn f16_at(plane: u32, i: u32) -> f32 {
  let pair = word(plane, i >> 1u);
  return unpack2x16float(select(pair, pair >> 16u, (i & 1u) != 0u)).x;
}

fn u16_at(plane: u32, i: u32) -> u32 {
  return (word(plane, i >> 1u) >> ((i & 1u) * 16u)) & 0xffffu;
}

fn u8_at(plane: u32, i: u32) -> u32 {
  return (word(plane, i >> 2u) >> ((i & 3u) * 8u)) & 0xffu;
}

// The lowest byte as a signed number.
fn signed(byte: u32) -> f32 {
  return f32(bitcast<i32>(byte << 24u) >> 24u);
}

fn low4(w: u32) -> u32 {
  return w & 0x0f0f0f0fu;
}

fn high4(w: u32) -> u32 {
  return (w >> 4u) & 0x0f0f0f0fu;
}

// q - bias for 4-bit q.
fn run4(v: vec4<u32>, bias: f32) -> Run {
  return Run(
    bytes(low4(v.x), bias),
    bytes(high4(v.x), bias),
    bytes(low4(v.y), bias),
    bytes(high4(v.y), bias),
    bytes(low4(v.z), bias),
    bytes(high4(v.z), bias),
    bytes(low4(v.w), bias),
    bytes(high4(v.w), bias),
  );
}

// Bit k of every byte, at bit `to`.
fn bit(h: u32, k: u32, to: u32) -> u32 {
  return ((h >> k) & 0x01010101u) << to;
}

// q - bias for q of 4 low bits and a fifth.
fn run5(v: vec4<u32>, h: u32, bias: f32) -> Run {
  return Run(
    bytes(low4(v.x) | bit(h, 0u, 4u), bias),
    bytes(high4(v.x) | bit(h, 1u, 4u), bias),
    bytes(low4(v.y) | bit(h, 2u, 4u), bias),
    bytes(high4(v.y) | bit(h, 3u, 4u), bias),
    bytes(low4(v.z) | bit(h, 4u, 4u), bias),
    bytes(high4(v.z) | bit(h, 5u, 4u), bias),
    bytes(low4(v.w) | bit(h, 6u, 4u), bias),
    bytes(high4(v.w) | bit(h, 7u, 4u), bias),
  );
}

fn two(w: u32, k: u32) -> u32 {
  return (w >> (2u * k)) & 0x03030303u;
}

// q - bias for q of 4 low and 2 high bits.
fn run6(v: vec4<u32>, h: vec2<u32>, bias: f32) -> Run {
  return Run(
    bytes(low4(v.x) | (two(h.x, 0u) << 4u), bias),
    bytes(high4(v.x) | (two(h.x, 1u) << 4u), bias),
    bytes(low4(v.y) | (two(h.x, 2u) << 4u), bias),
    bytes(high4(v.y) | (two(h.x, 3u) << 4u), bias),
    bytes(low4(v.z) | (two(h.y, 0u) << 4u), bias),
    bytes(high4(v.z) | (two(h.y, 1u) << 4u), bias),
    bytes(low4(v.w) | (two(h.y, 2u) << 4u), bias),
    bytes(high4(v.w) | (two(h.y, 3u) << 4u), bias),
  );
}

// q - bias for q of 2 low bits and a third.
fn run3(v: vec2<u32>, h: u32, bias: f32) -> Run {
  return Run(
    bytes(two(v.x, 0u) | bit(h, 0u, 2u), bias),
    bytes(two(v.x, 1u) | bit(h, 1u, 2u), bias),
    bytes(two(v.x, 2u) | bit(h, 2u, 2u), bias),
    bytes(two(v.x, 3u) | bit(h, 3u, 2u), bias),
    bytes(two(v.y, 0u) | bit(h, 4u, 2u), bias),
    bytes(two(v.y, 1u) | bit(h, 5u, 2u), bias),
    bytes(two(v.y, 2u) | bit(h, 6u, 2u), bias),
    bytes(two(v.y, 3u) | bit(h, 7u, 2u), bias),
  );
}

// Words 2 i and 2 i + 1 of a plane.
fn word2(plane: u32, i: u32) -> vec2<u32> {
  let v = weights[plane + (i >> 1u)];
  return select(v.xy, v.zw, vec2<bool>((i & 1u) != 0u));
}
