// What every kernel sees.
//
// arena     all activation buffers: rows of f32 at a base and a stride that the immediates give, both in floats. One buffer, because
//           after fusion every step reads what the one before it wrote.
// vectors   norm weights, biases and sink scores, one after the other.
// frame     what changes from step to step: token records, wanted rows, KV cells, page lists; then the rotary tables.
//
// A token record is [id, cell, index of its page list in `frame`, pages in it, position on axis 0, 1, ..]. A cell is
// (position + 1) * 2 + pinned, 0 where it is empty.
@group(0) @binding(0) var<storage, read_write> arena: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> vectors: array<f32>;
@group(0) @binding(2) var<storage, read> frame: array<u32>;

// "There is none", for optional indices.
const NONE: u32 = 0xffffffffu;

fn load(i: u32) -> f32 {
  return arena[i >> 2u][i & 3u];
}

fn store(i: u32, value: f32) {
  arena[i >> 2u][i & 3u] = value;
}
