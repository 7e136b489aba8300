// out[t, :] = sum_j share[t, j] * x[t * top_k + j, :]. One invocation for each value.
#import lib/frame

override WIDTH: u32 = 64u;

struct Args {
  x: u32,
  x_stride: u32,
  out: u32,
  out_stride: u32,
  shares: u32,
  shares_stride: u32,
  width: u32,
  top_k: u32,
}

var<immediate> args: Args;

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let i = group.x * WIDTH + local;
  if i >= args.width {
    return;
  }
  var sum = 0.0;
  for (var j = 0u; j < args.top_k; j++) {
    let share = load(args.shares + group.y * args.shares_stride + j);
    sum += share * load(args.x + (group.y * args.top_k + j) * args.x_stride + i);
  }
  store(args.out + group.y * args.out_stride + i, sum);
}
