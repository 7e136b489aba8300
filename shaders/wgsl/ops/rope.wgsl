// Turns the rotary pairs of every head in place: (a, b) -> magnitude * (a cos - b sin, a sin + b cos). One invocation
// for each pair. A table in `frame` holds [frequency high, low, axis] for each pair.
#import lib/frame
#import lib/turns

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
  let entry = args.table + pair * 3u;
  let position = bitcast<i32>(frame[group.y * args.record + 4u + frame[entry + 2u]]);
  let turned = args.magnitude * cos_sin(turn(position, frame[entry], frame[entry + 1u]));
  let head = args.x + group.y * args.x_stride + i / args.pairs * args.head_dim;
  let first = head + select(pair, 2u * pair, args.interleaved != 0u);
  let second = select(first + args.pairs, first + 1u, args.interleaved != 0u);
  let a = load(first);
  let b = load(second);
  store(first, a * turned.x - b * turned.y);
  store(second, a * turned.y + b * turned.x);
}
