// The k largest values of each row in order and their indices as f32. One workgroup for each row looks k times for the
// greatest value that stands after the one found before. Also routes tokens to experts: with `softmax`, the values
// become the softmax over the k.
#import lib/frame
#import lib/best
#import lib/math

struct Args {
  x: u32,
  x_stride: u32,
  values: u32,
  values_stride: u32,
  indices: u32,
  indices_stride: u32,
  width: u32,
  k: u32,
  softmax: u32,
}

var<immediate> args: Args;

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let x = args.x + group.y * args.x_stride;
  let values = args.values + group.y * args.values_stride;
  var last = Best(0.0, NOBODY);
  var first = 0.0;
  var sum = 0.0;
  for (var k = 0u; k < args.k; k++) {
    var mine = Best(LOWEST, NOBODY);
    for (var i = local; i < args.width; i += WIDTH) {
      let candidate = Best(load(x + i), i);
      if (k == 0u || before(last, candidate)) && before(candidate, mine) {
        mine = candidate;
      }
    }
    last = group_best(mine, local);
    if k == 0u {
      first = last.value;
    }
    sum += exact_exp(last.value - first);
    if local == 0u {
      store(values + k, select(last.value, exact_exp(last.value - first), args.softmax != 0u));
      store(args.indices + group.y * args.indices_stride + k, f32(last.index));
    }
  }
  if args.softmax != 0u && local == 0u {
    for (var k = 0u; k < args.k; k++) {
      store(values + k, load(values + k) / sum);
    }
  }
}
