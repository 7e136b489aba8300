// Each run of `group` values of a row is normalized by itself. One workgroup for each. In place where `out` is `x`.
//
//   kind 0 (rms)     y = x / sqrt(mean(x^2) + eps) * weight
//   kind 1 (layer)   y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias
//
// Where `group` is the whole row, its twin may be wanted too.
#import lib/rounded
#import lib/group

struct Args {
  x: u32,
  x_stride: u32,
  out: u32,
  out_stride: u32,
  group: u32,
  weight: u32,
  bias: u32,
  kind: u32,
  eps: f32,
  twin: u32,
}

var<immediate> args: Args;

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let x = args.x + group.y * args.x_stride + group.x * args.group;
  let out = args.out + group.y * args.out_stride + group.x * args.group;
  let n = f32(args.group);
  var center = 0.0;
  if args.kind == 1u {
    var sum = 0.0;
    for (var i = local; i < args.group; i += WIDTH) {
      sum += load(x + i);
    }
    center = group_sum(sum, local) / n;
  }
  var squares = 0.0;
  for (var i = local; i < args.group; i += WIDTH) {
    let value = load(x + i) - center;
    squares += value * value;
  }
  let factor = 1.0 / sqrt(group_sum(squares, local) / n + args.eps);
  for (var i = local; i < args.group; i += WIDTH) {
    var y = (load(x + i) - center) * factor * vectors[args.weight + i];
    if args.bias != NONE {
      y += vectors[args.bias + i];
    }
    store(out + i, y);
  }
  round_written(args.out, args.twin, group.y * args.out_stride, args.group / 32u, local, WIDTH);
}
