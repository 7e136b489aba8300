// After the projections of an attention block, in one dispatch: norm of every query and key head (qwen3, gemma3), rotary
// turn, and the store of keys and values. One workgroup for each token and head: the query heads, then the key
// heads, then the value heads. Queries are changed in place; keys and values go to their cells only.
#import lib/frame
#import lib/group
#import lib/rotary
#import KV

override HEAD_DIM: u32 = 64u;

struct Args {
  q: u32,
  q_stride: u32,
  k: u32,
  k_stride: u32,
  v: u32,
  v_stride: u32,
  heads: u32,
  kv_heads: u32,
  pairs: u32,
  interleaved: u32,
  table: u32,
  magnitude: f32,
  record: u32,
  q_norm: u32,
  k_norm: u32,
  eps: f32,
}

var<immediate> args: Args;

var<workgroup> head_values: array<f32, HEAD_DIM + 1u>;

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let t = group.y;
  var head = group.x;
  var at = args.q + t * args.q_stride + head * HEAD_DIM;
  var norm = args.q_norm;
  if head >= args.heads {
    head -= args.heads;
    norm = args.k_norm;
    at = args.k + t * args.k_stride + head * HEAD_DIM;
  }
  let is_value = group.x >= args.heads + args.kv_heads;
  if is_value {
    head -= args.kv_heads;
    norm = NONE;
    at = args.v + t * args.v_stride + head * HEAD_DIM;
  }
  for (var d = local; d < HEAD_DIM; d += WIDTH) {
    head_values[d] = load(at + d);
  }
  if local == 0u {
    head_values[HEAD_DIM] = 0.0;
  }
  if norm != NONE {
    var squares = 0.0;
    for (var d = local; d < HEAD_DIM; d += WIDTH) {
      squares += head_values[d] * head_values[d];
    }
    let factor = 1.0 / sqrt(group_sum(squares, local) / f32(HEAD_DIM) + args.eps);
    for (var d = local; d < HEAD_DIM; d += WIDTH) {
      head_values[d] = head_values[d] * factor * vectors[norm + d];
    }
  }
  workgroupBarrier();
  if !is_value {
    for (var pair = local; pair < args.pairs; pair += WIDTH) {
      let p = pair_places(pair);
      let y = turned(vec2<f32>(head_values[p.x], head_values[p.y]), rotation(pair, t));
      head_values[p.x] = y.x;
      head_values[p.y] = y.y;
    }
  }
  workgroupBarrier();
  if group.x < args.heads {
    for (var d = local; d < HEAD_DIM; d += WIDTH) {
      store(at + d, head_values[d]);
    }
    return;
  }
  let cell = (frame[t * args.record + 1u] * args.kv_heads + head) * ((HEAD_DIM + 7u) / 8u);
  for (var d = local * 2u; d < HEAD_DIM; d += WIDTH * 2u) {
    if is_value {
      store_value(cell, d, head_values[d], head_values[d + 1u]);
    } else {
      store_key(cell, d, head_values[d], head_values[d + 1u]);
    }
  }
}
