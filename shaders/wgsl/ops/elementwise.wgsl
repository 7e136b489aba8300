// Ops that treat every value by itself; one invocation for each. `mode` says which:
//
//   0 activate(x)    1 activate(x) * y    2 x + y    3 factor * x    4 factor * tanh(x / factor)
#import lib/rounded
#import lib/activation

override WIDTH: u32 = 64u;

struct Args {
  x: u32,
  x_stride: u32,
  y: u32,
  y_stride: u32,
  out: u32,
  out_stride: u32,
  width: u32,
  mode: u32,
  activation: u32,
  factor: f32,
  twin: u32,
}

var<immediate> args: Args;

fn value(x: f32, y: u32) -> f32 {
  switch args.mode {
    case 0u: {
      return activate(args.activation, x);
    }
    case 1u: {
      return activate(args.activation, x) * load(y);
    }
    case 2u: {
      return x + load(y);
    }
    case 3u: {
      return args.factor * x;
    }
    default: {
      return args.factor * exact_tanh(x / args.factor);
    }
  }
}

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let first = group.x * WIDTH;
  let i = first + local;
  if i < args.width {
    let x = load(args.x + group.y * args.x_stride + i);
    store(args.out + group.y * args.out_stride + i, value(x, args.y + group.y * args.y_stride + i));
  }
  let runs = min(WIDTH, args.width - first) / 32u;
  round_written(args.out, args.twin, group.y * args.out_stride + first, runs, local, WIDTH);
}
