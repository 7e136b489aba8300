// A run: 32 neighbouring weights of a row. value = scale * q + offset, with one scale and offset for each half.
// VALUES says what four neighbouring q are, and multiplies: lib/floats, or lib/packed with integer dot products. A format says how
// to read quants and scales, whether there are offsets (HAS_OFFSET), and the largest |q| (LARGEST; 0 for values that are no integers).
#import lib/frame
#import VALUES

@group(1) @binding(0) var<storage, read> weights: array<vec4<u32>>;

struct Run {
  a: Four,
  b: Four,
  c: Four,
  d: Four,
  e: Four,
  f: Four,
  g: Four,
  h: Four,
}

// Word `i` of a plane that begins at vec4 `plane` of the weights.
fn word(plane: u32, i: u32) -> u32 {
  return weights[plane + (i >> 2u)][i & 3u];
}
