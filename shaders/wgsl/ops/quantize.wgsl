// Activations as integers, where the kernel that wrote them did not leave them so: one invocation for each run.
#import lib/rounded

override WIDTH: u32 = 64u;

struct Args {
  x: u32,
  x_stride: u32,
  out: u32,
  out_stride: u32,
  runs: u32,
}

var<immediate> args: Args;

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let run = group.x * WIDTH + local;
  if run < args.runs {
    let x = (args.x + group.y * args.x_stride) >> 2u;
    round_run(x + run * 8u, ((args.out + group.y * args.out_stride) >> 2u) + run * 8u);
  }
}
