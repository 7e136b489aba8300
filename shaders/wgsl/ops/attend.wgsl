// Attention of HEADS query heads that share a KV head, one token to a workgroup, over a part of the token's cells
// (split-K, as in Flash-Decoding): a block of WIDTH cells at a time, each scored by one invocation, then each invocation
// adds up DIMS of the head's values over the block. QUERIES says where the queries come from. Keys are read once for all HEADS. Softmax online (arXiv 1805.02867).
#import lib/attention
#import lib/group
#import lib/mask
#import KV
#import QUERIES

var<workgroup> queries: array<vec4<f32>, HEADS * ((HEAD_DIM + 7u) / 8u) * 2u>;
var<workgroup> heads_of_cells: array<u32, WIDTH>;
#unroll H HEADS
var<workgroup> weights_H: array<f32, WIDTH>;
#end

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let first = group.x * HEADS;
  let t = group.y;
  let kv_head = first / (args.heads / args.kv_heads);
  let octets = (HEAD_DIM + 7u) / 8u;

  prepare(first, t, group.z, local);
  workgroupBarrier();

  let list = frame[t * args.record + 2u];
  let n = frame[t * args.record + 3u] * 16u;
  let here = bitcast<i32>(frame[t * args.record + 4u]);
#unroll H HEADS
  var top_H = LOWEST;
  var sum_H = 0.0;
#unroll D DIMS
  var out_H_D = 0.0;
#end
#end
  for (var block = group.z * WIDTH; block < n; block += args.splits * WIDTH) {
    let i = block + local;
    var at = 0u;
    var seen = false;
#unroll H HEADS
    var score_H = LOWEST;
#end
    if i < n {
      let cell = frame[list + (i >> 4u)] * 16u + (i & 15u);
      var selected = false;
      if args.selection != NONE {
        selected = load(args.selection + (t * args.kv_heads + kv_head) * args.pages + (i >> 4u)) != 0.0;
      }
      seen = visible(here, frame[args.cells + cell], args.window, args.sinks, args.rules, selected);
      at = (cell * args.kv_heads + kv_head) * octets;
    }
    if seen {
#unroll H HEADS
      var dot_H = 0.0;
#end
      for (var o = 0u; o < octets; o++) {
        let k = key_octet(at, o);
#unroll H HEADS
        dot_H += dot(queries[(H * octets + o) * 2u], k.a) + dot(queries[(H * octets + o) * 2u + 1u], k.b);
#end
      }
#unroll H HEADS
      score_H = dot_H;
      if args.softcap != 0.0 {
        score_H = args.softcap * exact_tanh(dot_H / args.softcap);
      }
#end
    }
    // The largest score of every head, by halving; all heads share the barriers.
    heads_of_cells[local] = at;
#unroll H HEADS
    weights_H[local] = score_H;
#end
    workgroupBarrier();
    for (var half = WIDTH / 2u; half > 0u; half /= 2u) {
      if local < half {
#unroll H HEADS
        weights_H[local] = max(weights_H[local], weights_H[local + half]);
#end
      }
      workgroupBarrier();
    }
#unroll H HEADS
    let best_H = max(top_H, weights_H[0]);
#end
    workgroupBarrier();
#unroll H HEADS
    weights_H[local] = select(0.0, exact_exp(score_H - best_H), seen);
    let shrink_H = exact_exp(top_H - best_H);
    top_H = best_H;
    sum_H *= shrink_H;
#unroll D DIMS
    out_H_D *= shrink_H;
#end
#end
    workgroupBarrier();
    // Every invocation adds up the weights beside its values: the sum needs no halving of its own.
    let cells = min(WIDTH, n - block);
    for (var c = 0u; c < cells; c++) {
      let head = heads_of_cells[c];
#unroll H HEADS
      let weight_H = weights_H[c];
      sum_H += weight_H;
#end
#unroll D DIMS
      if D * WIDTH + local < HEAD_DIM {
        let value = value_at(head, D * WIDTH + local);
#unroll H HEADS
        out_H_D += select(0.0, weight_H * value, weight_H != 0.0);
#end
      }
#end
    }
    workgroupBarrier();
  }

#unroll H HEADS
  if args.splits == 1u {
    let top = with_sink(first + H, top_H);
    let shrink = exact_exp(top_H - top);
    let factor = shrink * reciprocal(first + H, top, sum_H * shrink);
#unroll D DIMS
    if D * WIDTH + local < HEAD_DIM {
      store(args.out + t * args.out_stride + (first + H) * HEAD_DIM + D * WIDTH + local, out_H_D * factor);
    }
#end
  } else {
    let at = part(t, first + H, group.z);
    if local == 0u {
      store(at, top_H);
      store(at + 1u, sum_H);
    }
#unroll D DIMS
    if D * WIDTH + local < HEAD_DIM {
      store(at + 2u + D * WIDTH + local, out_H_D);
    }
#end
  }
#end
  if args.splits == 1u {
    let at = t * args.out_stride + first * HEAD_DIM;
    round_written(args.out, args.twin, at, HEADS * HEAD_DIM / 32u, local, WIDTH);
  }
}
