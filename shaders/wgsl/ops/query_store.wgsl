// Keeps the queries of the last 16 tokens for `fold`, each in the row its position says. One invocation for each value.
#import lib/frame

override WIDTH: u32 = 64u;

struct Args {
  q: u32,
  q_stride: u32,
  width: u32,
  record: u32,
  queries: u32,
  queries_stride: u32,
  tokens: u32,
}

var<immediate> args: Args;

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let i = group.x * WIDTH + local;
  let t = group.y;
  if i >= args.width || args.tokens - t > 16u {
    return;
  }
  let row = frame[t * args.record + 4u] % 16u;
  store(args.queries + row * args.queries_stride + i, load(args.q + t * args.q_stride + i));
}
