// out[t, :] = scale * table[token[t], :]. One invocation for each run of each token; `first` and `rows` say which part of a
// table that was split by rows these weights hold. A token that is NONE is the one that the last step chose, at `fed` in the arena.
#import lib/frame
#import FORMAT

override WIDTH: u32 = 64u;

struct Args {
  out: u32,
  out_stride: u32,
  scale: f32,
  record: u32,
  first: u32,
  rows: u32,
  runs: u32,
  tokens: u32,
  plane0: u32,
  plane1: u32,
  plane2: u32,
  plane3: u32,
  fed: u32,
}

var<immediate> args: Args;

fn put(at: u32, w: vec4<f32>, scale: f32, offset: f32) {
  arena[at] = args.scale * (scale * w + offset);
}

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let run = group.x * WIDTH + local;
  let t = group.y;
  var token = frame[t * args.record];
  if token == NONE {
    token = u32(load(args.fed));
  }
  let row = token - args.first;
  if run >= args.runs || row >= args.rows {
    return;
  }
  let planes = vec4<u32>(args.plane0, args.plane1, args.plane2, args.plane3);
  let w = quants(row * args.runs + run, planes);
  let s = scales(row * args.runs + run, planes);
  let at = ((args.out + t * args.out_stride) >> 2u) + run * 8u;
  put(at, w.a, s.x, s.y);
  put(at + 1u, w.b, s.x, s.y);
  put(at + 2u, w.c, s.x, s.y);
  put(at + 3u, w.d, s.x, s.y);
  put(at + 4u, w.e, s.z, s.w);
  put(at + 5u, w.f, s.z, s.w);
  put(at + 6u, w.g, s.z, s.w);
  put(at + 7u, w.h, s.z, s.w);
}
