// Turns the rotary pairs of every head in place: (a, b) -> magnitude * (a cos - b sin, a sin + b cos). One invocation
// for each pair. A table in `frame` holds [frequency high, low, axis] for each pair.
#import lib/rotary

override WIDTH: u32 = 64u;

struct Args {
  x: u32,
  x_stride: u32,
  heads: u32,
  head_dim: u32,
  pairs: u32,
  interleaved: u32,
  table: u32,
  magnitude: f32,
  record: u32,
}

var<immediate> args: Args;

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let i = group.x * WIDTH + local;
  if i >= args.heads * args.pairs {
    return;
  }
  let pair = i % args.pairs;
  let at = args.x + group.y * args.x_stride + i / args.pairs * args.head_dim + pair_places(pair);
  let y = turned(vec2<f32>(load(at.x), load(at.y)), rotation(pair, group.y));
  store(at.x, y.x);
  store(at.y, y.y);
}
