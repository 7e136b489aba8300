// One matrix of one expert for every token and choice: out[s, r] = weights[expert(s), r, :] . x[s / share, :], where slot
// s = t * top_k + j, `share` is top_k where the choices of a token share an input and 1 where each has its own, and
// expert(s) stands in `indices` as f32. These weights hold the rows `first` .. `first + held` of all experts'
// matrices laid end to end; rows held elsewhere are left alone.
#import lib/lanes
#import FORMAT

struct Args {
  x: u32,
  x_stride: u32,
  out: u32,
  out_stride: u32,
  indices: u32,
  indices_stride: u32,
  top_k: u32,
  share: u32,
  rows: u32,
  runs: u32,
  first: u32,
  held: u32,
  plane0: u32,
  plane1: u32,
  plane2: u32,
  plane3: u32,
}

var<immediate> args: Args;

@compute @workgroup_size(WIDTH)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let lane = local % LANES;
  let row = (group.z * groups.x + group.x) * (WIDTH / LANES) + local / LANES;
  let slot = group.y;
  let expert = u32(load(args.indices + slot / args.top_k * args.indices_stride + slot % args.top_k));
  let place = expert * args.rows + min(row, args.rows - 1u) - args.first;
  let held = place < args.held;
  let base = select(0u, place, held) * args.runs;
  let x = (args.x + slot / args.share * args.x_stride) >> 2u;
  let planes = vec4<u32>(args.plane0, args.plane1, args.plane2, args.plane3);
  var sum = 0.0;
  for (var run = lane; run < args.runs; run += LANES) {
    sum += run_dot(quants(base + run, planes), scales(base + run, planes), x + run * 8u);
  }
  sum = lanes_sum(sum, local);
  if lane == 0u && row < args.rows && held {
    store(args.out + slot * args.out_stride + row, sum);
  }
}
