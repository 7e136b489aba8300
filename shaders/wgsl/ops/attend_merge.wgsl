// Adds up the parts of a token and query head that `attend` left; one workgroup for each.
#import lib/attention

override WIDTH: u32 = 64u;

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let head = group.x;
  let t = group.y;
  var top = with_sink(head, LOWEST);
  for (var s = 0u; s < args.splits; s++) {
    top = max(top, load(part(t, head, s)));
  }
  var sum = 0.0;
  for (var s = 0u; s < args.splits; s++) {
    sum += load(part(t, head, s) + 1u) * exact_exp(load(part(t, head, s)) - top);
  }
  let factor = reciprocal(head, top, sum);
  for (var d = local; d < HEAD_DIM; d += WIDTH) {
    var out = 0.0;
    for (var s = 0u; s < args.splits; s++) {
      out += load(part(t, head, s) + 2u + d) * exact_exp(load(part(t, head, s)) - top);
    }
    store(args.out + t * args.out_stride + head * HEAD_DIM + d, out * factor);
  }
  round_written(args.out, args.twin, t * args.out_stride + head * HEAD_DIM, HEAD_DIM / 32u, local, WIDTH);
}
