// The greatest of `width` values and its index; ties: the lower index, as the CPU's greedy sampler has it. Two launches: in the
// first every workgroup looks at `share` neighbouring values, in the second one workgroup chooses among what those
// found. One workgroup alone would read 150,000 logits at the speed of one compute unit.
//
//   values[g], indices[g]   of workgroup g; indices as f32, exact below 2^24
//   from_index              where the indices of the values stand, where they are not their places
#import lib/frame
#import lib/best

struct Args {
  x: u32,
  from_index: u32,
  values: u32,
  indices: u32,
  width: u32,
  share: u32,
}

var<immediate> args: Args;

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let end = min((group.x + 1u) * args.share, args.width);
  var mine = Best(LOWEST, NOBODY);
  for (var i = group.x * args.share + local; i < end; i += WIDTH) {
    var index = i;
    if args.from_index != NONE {
      index = u32(load(args.from_index + i));
    }
    let candidate = Best(load(args.x + i), index);
    // NaN is no number and never the greatest.
    if candidate.value == candidate.value && before(candidate, mine) {
      mine = candidate;
    }
  }
  let best = group_best(mine, local);
  if local == 0u {
    store(args.values + group.x, best.value);
    store(args.indices + group.x, f32(best.index));
  }
}
