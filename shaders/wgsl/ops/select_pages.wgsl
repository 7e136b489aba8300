// Chooses pages for a token and a KV head (one workgroup for each): those with the largest product of q and their range of
// keys, drawn in to `spread` of its width, among the pages that hold a cell which is causal but hidden by the mask. Flags for
// every page of the token's list go to `selection`, the products to `bounds`, in f32, [token, KV head, page].
#import lib/frame
#import lib/best
#import lib/mask
#import KV

override HEAD_DIM: u32 = 64u;

struct Args {
  q: u32,
  q_stride: u32,
  heads: u32,
  kv_heads: u32,
  record: u32,
  cells: u32,
  selection: u32,
  bounds: u32,
  pages: u32,
  budget: u32,
  window: u32,
  sinks: u32,
  rules: u32,
  spread: f32,
}

var<immediate> args: Args;

// Flags of a page: some cell of it is written / hidden from a query at `here`.
fn hides(page: u32, here: i32) -> bool {
  var hidden = false;
  for (var c = 0u; c < 16u; c++) {
    let cell = frame[args.cells + page * 16u + c];
    let position = i32(cell >> 1u) - 1;
    if position >= 0 && position <= here {
      hidden = hidden || !visible(here, cell, args.window, args.sinks, args.rules, false);
    }
  }
  return hidden;
}

fn bound(q: u32, page: u32, kv_head: u32) -> f32 {
  let octets = (HEAD_DIM + 7u) / 8u;
  let group = args.heads / args.kv_heads;
  var best = LOWEST;
  for (var h = 0u; h < group; h++) {
    var sum = 0.0;
    for (var d = 0u; d < HEAD_DIM; d++) {
      let x = load(q + (kv_head * group + h) * HEAD_DIM + d);
      var largest = LOWEST;
      var least = -LOWEST;
      for (var c = 0u; c < 16u; c++) {
        let cell = page * 16u + c;
        if frame[args.cells + cell] != 0u {
          let product = x * key_at((cell * args.kv_heads + kv_head) * octets, d);
          largest = max(largest, product);
          least = min(least, product);
        }
      }
      sum += 0.5 * (largest + least + args.spread * (largest - least));
    }
    best = max(best, sum);
  }
  return best;
}

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let kv_head = group.x;
  let t = group.y;
  let list = frame[t * args.record + 2u];
  let n = frame[t * args.record + 3u];
  let here = bitcast<i32>(frame[t * args.record + 4u]);
  let row = (t * args.kv_heads + kv_head) * args.pages;
  for (var i = local; i < n; i += WIDTH) {
    let page = frame[list + i];
    let candidate = hides(page, here);
    var value = 0.0;
    if candidate {
      value = bound(args.q + t * args.q_stride, page, kv_head);
    }
    store(args.bounds + row + i, value);
    // -1 marks a candidate that is not chosen yet.
    store(args.selection + row + i, select(0.0, -1.0, candidate));
  }
  storageBarrier();
  for (var k = 0u; k < args.budget; k++) {
    var mine = Best(LOWEST, NOBODY);
    for (var i = local; i < n; i += WIDTH) {
      if load(args.selection + row + i) < 0.0 {
        let candidate = Best(load(args.bounds + row + i), i);
        if before(candidate, mine) {
          mine = candidate;
        }
      }
    }
    let chosen = group_best(mine, local);
    if chosen.index != NOBODY && chosen.index % WIDTH == local {
      store(args.selection + row + chosen.index, 1.0);
    }
  }
  for (var i = local; i < n; i += WIDTH) {
    store(args.selection + row + i, max(load(args.selection + row + i), 0.0));
  }
}
