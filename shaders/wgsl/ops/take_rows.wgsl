// out[l, :] = x[wanted[l], :], with `wanted` a list in the frame. One invocation for each value.
#import lib/rounded

override WIDTH: u32 = 64u;

struct Args {
  x: u32,
  x_stride: u32,
  out: u32,
  out_stride: u32,
  width: u32,
  wanted: u32,
  twin: u32,
}

var<immediate> args: Args;

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let first = group.x * WIDTH;
  let i = first + local;
  if i < args.width {
    store(args.out + group.y * args.out_stride + i, load(args.x + frame[args.wanted + group.y] * args.x_stride + i));
  }
  let runs = min(WIDTH, args.width - first) / 32u;
  round_written(args.out, args.twin, group.y * args.out_stride + first, runs, local, WIDTH);
}
