// Ops that treat every value by itself; one invocation for each. `mode` says which:
//
//   0 activate(x)    1 activate(x) * y    2 x + y    3 factor * x    4 factor * tanh(x / factor)
#import lib/frame
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
}

var<immediate> args: Args;

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let i = group.x * WIDTH + local;
  if i >= args.width {
    return;
  }
  let x = load(args.x + group.y * args.x_stride + i);
  let y = args.y + group.y * args.y_stride + i;
  var value = 0.0;
  switch args.mode {
    case 0u: {
      value = activate(args.activation, x);
    }
    case 1u: {
      value = activate(args.activation, x) * load(y);
    }
    case 2u: {
      value = x + load(y);
    }
    case 3u: {
      value = args.factor * x;
    }
    default: {
      value = args.factor * exact_tanh(x / args.factor);
    }
  }
  store(args.out + group.y * args.out_stride + i, value);
}
