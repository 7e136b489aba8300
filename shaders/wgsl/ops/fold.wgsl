// Folds old cells of one KV head (one workgroup for each): those to which the stored queries attend most stay, and move together in
// their order. `list` holds all pages of the sequence; the first `old` are folded, and the softmax is over all but the last.
//
//   weights  [KV head, cell]  the attention of all queries; -1 where the cell goes
//   scores   [KV head, cell]  of one query
#import lib/frame
#import lib/best
#import KV

override HEAD_DIM: u32 = 64u;

struct Args {
  queries: u32,
  queries_stride: u32,
  heads: u32,
  kv_heads: u32,
  scale: f32,
  list: u32,
  weights: u32,
  scores: u32,
  cells: u32,
  pages: u32,
  old: u32,
  sinks: u32,
  keep: u32,
}

var<immediate> args: Args;

fn cell_at(i: u32, kv_head: u32) -> u32 {
  let octets = (HEAD_DIM + 7u) / 8u;
  let cell = u32(load(args.list + i / 16u)) * 16u + i % 16u;
  return (cell * args.kv_heads + kv_head) * octets;
}

fn score(query: u32, at: u32) -> f32 {
  var sum = 0.0;
  for (var d = 0u; d < HEAD_DIM; d++) {
    sum += load(query + d) * key_at(at, d);
  }
  return args.scale * sum;
}

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let kv_head = group.x;
  let per_key = args.heads / args.kv_heads;
  let weights = args.weights + kv_head * args.cells;
  let scores = args.scores + kv_head * args.cells;
  let seen = (args.pages - 1u) * 16u;
  let n = args.old * 16u;
  for (var i = local; i < n; i += WIDTH) {
    store(weights + i, 0.0);
  }
  for (var q = 0u; q < 16u * per_key; q++) {
    let head = kv_head * per_key + q % per_key;
    let query = args.queries + q / per_key * args.queries_stride + head * HEAD_DIM;
    var top = LOWEST;
    for (var i = local; i < seen; i += WIDTH) {
      let x = score(query, cell_at(i, kv_head));
      store(scores + i, x);
      top = max(top, x);
    }
    top = group_max(top, local);
    var sum = 0.0;
    for (var i = local; i < seen; i += WIDTH) {
      sum += exp(load(scores + i) - top);
    }
    sum = group_sum(sum, local);
    for (var i = local; i < n; i += WIDTH) {
      store(weights + i, load(weights + i) + exp(load(scores + i) - top) / sum);
    }
  }
  // The least go; of equals the last, so indices run backwards.
  for (var k = args.keep; k < n; k++) {
    var mine = Best(LOWEST, NOBODY);
    for (var i = local; i < n; i += WIDTH) {
      let weight = load(weights + i);
      if i >= args.sinks && weight >= 0.0 {
        let candidate = Best(-weight, n - i);
        if before(candidate, mine) {
          mine = candidate;
        }
      }
    }
    let chosen = group_best(mine, local);
    if chosen.index != NOBODY && (n - chosen.index) % WIDTH == local {
      store(weights + n - chosen.index, -1.0);
    }
  }
  storageBarrier();
  var to = 0u;
  for (var i = 0u; i < n; i++) {
    if load(weights + i) >= 0.0 {
      let source = cell_at(i, kv_head);
      let place = cell_at(to, kv_head);
      for (var d = 2u * local; d < HEAD_DIM; d += 2u * WIDTH) {
        store_key(place, d, key_at(source, d), key_at(source, d + 1u));
        store_value(place, d, value_at(source, d), value_at(source, d + 1u));
      }
      to += 1u;
    }
  }
}
