// KV cache of half floats: eight values to a vec4; a head of a cell begins at a whole vec4.
@group(1) @binding(0) var<storage, read_write> keys: array<vec4<u32>>;
@group(1) @binding(1) var<storage, read_write> values: array<vec4<u32>>;

struct Octet {
  a: vec4<f32>,
  b: vec4<f32>,
}

fn octet(v: vec4<u32>) -> Octet {
  return Octet(
    vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y)),
    vec4<f32>(unpack2x16float(v.z), unpack2x16float(v.w)),
  );
}

fn key_octet(at: u32, i: u32) -> Octet {
  return octet(keys[at + i]);
}

fn value_octet(at: u32, i: u32) -> Octet {
  return octet(values[at + i]);
}

// Value `d` of the head at vec4 `at`.
fn value_at(at: u32, d: u32) -> f32 {
  let word = values[at + (d >> 3u)][(d >> 1u) & 3u];
  return unpack2x16float(select(word, word >> 16u, (d & 1u) != 0u)).x;
}

fn key_at(at: u32, d: u32) -> f32 {
  let word = keys[at + (d >> 3u)][(d >> 1u) & 3u];
  return unpack2x16float(select(word, word >> 16u, (d & 1u) != 0u)).x;
}

// To the nearest half float, ties to even: pack2x16float may round either way.
fn half_bits(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let sign = (bits >> 16u) & 0x8000u;
  let size = bits & 0x7fffffffu;
  if size >= 0x47800000u {
    return sign | select(0x7c00u, 0x7e00u, size > 0x7f800000u);
  }
  if size < 0x38800000u {
    // Below 2^-14 the step is 2^-24: adding 0.5 puts it at the last place of the sum.
    return sign | (bitcast<u32>(bitcast<f32>(size) + 0.5) - 0x3f000000u);
  }
  return sign | ((size - 0x38000000u + 0xfffu + ((size >> 13u) & 1u)) >> 13u);
}

// Two neighbouring values as one word.
fn packed(low: f32, high: f32) -> u32 {
  return half_bits(low) | (half_bits(high) << 16u);
}

fn store_key(at: u32, d: u32, low: f32, high: f32) {
  keys[at + (d >> 3u)][(d >> 1u) & 3u] = packed(low, high);
}

fn store_value(at: u32, d: u32, low: f32, high: f32) {
  values[at + (d >> 3u)][(d >> 1u) & 3u] = packed(low, high);
}
