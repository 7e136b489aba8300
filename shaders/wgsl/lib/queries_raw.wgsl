// The queries of `attend` for a batch of one token, as the projections left them: what `heads` does with them is done here, with a
// dispatch less. The token's key and value go to their cell too, stored by the one workgroup that attends to that cell.
#import lib/attention
#import lib/group
#import lib/rotary
#import KV

var<workgroup> key: array<f32, HEAD_DIM + 1u>;
var<workgroup> is_mine: u32;

// What the norm of a head multiplies it with beside its weights.
fn norm_factor(at: u32, norm: u32, local: u32) -> f32 {
  if norm == NONE {
    return 1.0;
  }
  var squares = 0.0;
  for (var d = local; d < HEAD_DIM; d += WIDTH) {
    let x = load(at + d);
    squares += x * x;
  }
  return 1.0 / sqrt(group_sum(squares, local) / f32(HEAD_DIM) + args.eps);
}

fn normed(at: u32, d: u32, norm: u32, factor: f32) -> f32 {
  let x = load(at + d);
  if norm == NONE {
    return x;
  }
  return x * factor * vectors[norm + d];
}

fn prepare(first: u32, t: u32, split: u32, local: u32) {
  let octets = (HEAD_DIM + 7u) / 8u;
  let kv_head = first / HEADS;
  let key_at = args.k + kv_head * HEAD_DIM;
  let key_factor = norm_factor(key_at, args.k_norm, local);
  for (var d = local; d < HEAD_DIM; d += WIDTH) {
    key[d] = normed(key_at, d, args.k_norm, key_factor);
  }
  if local == 0u {
    key[HEAD_DIM] = 0.0;
    is_mine = 0u;
  }
#unroll H HEADS
  let at_H = args.q + (first + H) * HEAD_DIM;
  let factor_H = norm_factor(at_H, args.q_norm, local);
  for (var d = local; d < octets * 8u; d += WIDTH) {
    var value = 0.0;
    if d < HEAD_DIM {
      value = normed(at_H, d, args.q_norm, factor_H);
    }
    queries[H * octets * 2u + (d >> 2u)][d & 3u] = value;
  }
#end
  workgroupBarrier();

  for (var pair = local; pair < args.pairs; pair += WIDTH) {
    let by = rotation(pair, 0u);
    let p = pair_places(pair);
    let k = turned(vec2<f32>(key[p.x], key[p.y]), by);
    key[p.x] = k.x;
    key[p.y] = k.y;
#unroll H HEADS
    let at_H = H * octets * 2u;
    let q_H = turned(vec2<f32>(queries[at_H + (p.x >> 2u)][p.x & 3u], queries[at_H + (p.y >> 2u)][p.y & 3u]), by);
    queries[at_H + (p.x >> 2u)][p.x & 3u] = q_H.x;
    queries[at_H + (p.y >> 2u)][p.y & 3u] = q_H.y;
#end
  }
  let cell = frame[1];
  for (var page = local; page < frame[3]; page += WIDTH) {
    let block = (page * 16u + (cell & 15u)) / WIDTH;
    if frame[frame[2] + page] == cell >> 4u && block % args.splits == split {
      is_mine = 1u;
    }
  }
  workgroupBarrier();

  for (var i = local; i < HEADS * octets * 2u; i += WIDTH) {
    queries[i] *= args.scale;
  }
  if is_mine != 0u {
    let at = (cell * args.kv_heads + kv_head) * octets;
    let v = args.v + kv_head * HEAD_DIM;
    for (var d = local * 2u; d < HEAD_DIM; d += WIDTH * 2u) {
      var second = 0.0;
      if d + 1u < HEAD_DIM {
        second = load(v + d + 1u);
      }
      store_key(at, d, key[d], key[d + 1u]);
      store_value(at, d, load(v + d), second);
    }
  }
  storageBarrier();
}
