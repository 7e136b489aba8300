// Writes the keys and values of every token into its cell. One invocation for each pair of values; an odd head is filled up
// with a zero.
#import lib/frame
#import KV

override WIDTH: u32 = 64u;

struct Args {
  k: u32,
  k_stride: u32,
  v: u32,
  v_stride: u32,
  kv_heads: u32,
  head_dim: u32,
  record: u32,
}

var<immediate> args: Args;

fn second(at: u32, d: u32) -> f32 {
  if d + 1u < args.head_dim {
    return load(at + 1u);
  }
  return 0.0;
}

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let i = group.x * WIDTH + local;
  let pairs = (args.head_dim + 1u) / 2u;
  if i >= args.kv_heads * pairs {
    return;
  }
  let t = group.y;
  let head = i / pairs;
  let d = i % pairs * 2u;
  let octets = (args.head_dim + 7u) / 8u;
  let at = (frame[t * args.record + 1u] * args.kv_heads + head) * octets;
  let k = args.k + t * args.k_stride + head * args.head_dim + d;
  let v = args.v + t * args.v_stride + head * args.head_dim + d;
  store_key(at, d, load(k), second(k, d));
  store_value(at, d, load(v), second(v, d));
}
