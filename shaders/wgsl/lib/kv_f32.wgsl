// KV cache of f32, for exact arithmetic: eight values to two vec4s; a head of a cell begins at a whole octet.
@group(1) @binding(0) var<storage, read_write> keys: array<vec4<f32>>;
@group(1) @binding(1) var<storage, read_write> values: array<vec4<f32>>;

struct Octet {
  a: vec4<f32>,
  b: vec4<f32>,
}

fn key_octet(at: u32, i: u32) -> Octet {
  return Octet(keys[(at + i) * 2u], keys[(at + i) * 2u + 1u]);
}

fn value_octet(at: u32, i: u32) -> Octet {
  return Octet(values[(at + i) * 2u], values[(at + i) * 2u + 1u]);
}

fn value_at(at: u32, d: u32) -> f32 {
  return values[at * 2u + (d >> 2u)][d & 3u];
}

fn key_at(at: u32, d: u32) -> f32 {
  return keys[at * 2u + (d >> 2u)][d & 3u];
}

fn store_key(at: u32, d: u32, low: f32, high: f32) {
  keys[at * 2u + (d >> 2u)][d & 3u] = low;
  keys[at * 2u + (d >> 2u)][(d & 3u) + 1u] = high;
}

fn store_value(at: u32, d: u32, low: f32, high: f32) {
  values[at * 2u + (d >> 2u)][d & 3u] = low;
  values[at * 2u + (d >> 2u)][(d & 3u) + 1u] = high;
}
