// Attention of many tokens, for reading a prompt: 32 tokens of one query head to a workgroup, 32 cells (two pages) at a time, with
// the softmax online (FlashAttention, arXiv 2205.14135). Keys and values are read once for 32 tokens instead of once for each.
//
//   scores    4 tokens x 2 cells for each of 8 x 16 invocations, over runs of 32 dimensions:
//             tile[d / 4][token], then tile[d / 4][cell], so that neighbours read neighbouring vec4s
//   weights   [cell][token / 4], a vec4 for four tokens
//   outputs   4 tokens x (vec4 at every 64th dimension) in registers; values of 32 cells x 64 dimensions in the same tile
//
// 13 KiB of workgroup memory whatever the head's size: queries are read again for every block of cells, from the cache, instead
// of being held (which took 16 KiB at 128 dimensions and left nothing for keys at 256). A block that no token of the tile
// sees (the future, or what a window hides) is passed over before its keys are read.
//
// Tokens of a tile may belong to different sequences: the cells of each page list are gone through once, for its own tokens.
#import lib/attention
#import lib/mask
#import KV

const TOKENS: u32 = 32u;
const CELLS: u32 = 32u;

var<workgroup> tile: array<vec4<f32>, 512>;
var<workgroup> weights: array<vec4<f32>, 256>;
var<workgroup> tops: array<f32, 32>;
var<workgroup> sums: array<f32, 32>;
var<workgroup> shrinks: array<f32, 32>;
var<workgroup> part_tops: array<f32, 128>;
var<workgroup> part_sums: array<f32, 128>;
var<workgroup> seen: atomic<u32>;
var<workgroup> wanted: u32;

fn query(at: u32, d: u32) -> vec4<f32> {
  var q = vec4<f32>(0.0);
  if HEAD_DIM % 4u == 0u {
    if d < HEAD_DIM {
      q = arena[(at + d) >> 2u];
    }
  } else {
#unroll I 4
    if d + I < HEAD_DIM {
      q[I] = load(at + d + I);
    }
#end
  }
  return args.scale * q;
}

// A value that overflowed its half float must not turn the weight 0 of those who do not see it into NaN.
fn finite(v: vec4<f32>) -> vec4<f32> {
  return clamp(v, vec4<f32>(LOWEST), vec4<f32>(-LOWEST));
}

fn sees(here: i32, t: u32, kv_head: u32, list: u32, i: u32, cell: u32) -> bool {
  if frame[t * args.record + 2u] != list {
    return false;
  }
  var selected = false;
  if args.selection != NONE {
    selected = load(args.selection + (t * args.kv_heads + kv_head) * args.pages + (i >> 4u)) != 0.0;
  }
  return visible(here, cell, args.window, args.sinks, args.rules, selected);
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let head = group.x;
  let kv_head = head / (args.heads / args.kv_heads);
  let first = group.y * TOKENS;
  let last = args.tokens - 1u;
  let octets = (HEAD_DIM + 7u) / 8u;
  // For scores and outputs: four tokens, and a lane that owns two cells, or a vec4 of every 64 dimensions.
  let four = local >> 4u;
  let lane = local & 15u;
  // For the softmax: one token and a quarter of the cells.
  let row = local & 31u;
  let quarter = local >> 5u;

#unroll R 4
  let t_R = min(first + four * 4u + R, last);
  let here_R = bitcast<i32>(frame[t_R * args.record + 4u]);
#unroll D DIMS
  var out_R_D = vec4<f32>(0.0);
#end
#end
  if local < TOKENS {
    tops[local] = LOWEST;
    sums[local] = 0.0;
  }
  if local == 0u {
    atomicStore(&seen, 0u);
  }

  for (var s = 0u; s < TOKENS; s++) {
    let list = frame[min(first + s, last) * args.record + 2u];
    var known = first + s > last || (s > 0u && list == frame[first * args.record + 2u]);
    for (var e = 1u; e < s && !known; e++) {
      known = list == frame[(first + e) * args.record + 2u];
    }
    if known {
      continue;
    }
    let n = frame[(first + s) * args.record + 3u] * 16u;
    for (var block = 0u; block < n; block += CELLS) {
      // Who sees what of this block.
#unroll C 2
      let i_C = block + lane + C * 16u;
      var cell_C = 0u;
      var seen_C = vec4<bool>(false);
      if i_C < n {
        cell_C = frame[list + (i_C >> 4u)] * 16u + (i_C & 15u);
        let held = frame[args.cells + cell_C];
        seen_C = vec4<bool>(
          sees(here_0, t_0, kv_head, list, i_C, held),
          sees(here_1, t_1, kv_head, list, i_C, held),
          sees(here_2, t_2, kv_head, list, i_C, held),
          sees(here_3, t_3, kv_head, list, i_C, held),
        );
      }
#end
      workgroupBarrier();
      if any(seen_0) || any(seen_1) {
        atomicStore(&seen, 1u);
      }
      workgroupBarrier();
      if local == 0u {
        wanted = atomicExchange(&seen, 0u);
      }
      if workgroupUniformLoad(&wanted) == 0u {
        continue;
      }

#unroll C 2
      var score_C = vec4<f32>(0.0);
#end
      for (var run = 0u; run < (HEAD_DIM + 31u) / 32u; run++) {
        // Two vec4s of queries and an octet of keys for each invocation.
        let t = min(first + row, last);
        let at = args.q + t * args.q_stride + head * HEAD_DIM;
        tile[quarter * 2u * TOKENS + row] = query(at, run * 32u + quarter * 8u);
        tile[(quarter * 2u + 1u) * TOKENS + row] = query(at, run * 32u + quarter * 8u + 4u);
        let i = block + row;
        let o = run * 4u + quarter;
        var k = Octet(vec4<f32>(0.0), vec4<f32>(0.0));
        if i < n && o < octets {
          let cell = frame[list + (i >> 4u)] * 16u + (i & 15u);
          k = key_octet((cell * args.kv_heads + kv_head) * octets, o);
        }
        tile[256u + quarter * 2u * CELLS + row] = k.a;
        tile[256u + (quarter * 2u + 1u) * CELLS + row] = k.b;
        workgroupBarrier();
        for (var d = 0u; d < 8u; d++) {
#unroll R 4
          let q_R = tile[d * TOKENS + four * 4u + R];
#end
#unroll C 2
          let k_C = tile[256u + d * CELLS + lane + C * 16u];
          score_C += vec4<f32>(dot(q_0, k_C), dot(q_1, k_C), dot(q_2, k_C), dot(q_3, k_C));
#end
        }
        workgroupBarrier();
      }
#unroll C 2
      if args.softcap != 0.0 {
#unroll R 4
        score_C[R] = args.softcap * exact_tanh(score_C[R] / args.softcap);
#end
      }
      weights[(lane + C * 16u) * 8u + four] = select(vec4<f32>(LOWEST), score_C, seen_C);
#end
      workgroupBarrier();

      var best = LOWEST;
      for (var c = 0u; c < 8u; c++) {
        best = max(best, weights[(quarter * 8u + c) * 8u + (row >> 2u)][row & 3u]);
      }
      part_tops[local] = best;
      workgroupBarrier();
      best = max(max(part_tops[row], part_tops[row + 32u]), max(part_tops[row + 64u], part_tops[row + 96u]));
      best = max(best, tops[row]);
      var sum = 0.0;
      for (var c = 0u; c < 8u; c++) {
        let at = (quarter * 8u + c) * 8u + (row >> 2u);
        let score = weights[at][row & 3u];
        let weight = select(exact_exp(score - best), 0.0, score == LOWEST);
        weights[at][row & 3u] = weight;
        sum += weight;
      }
      part_sums[local] = sum;
      workgroupBarrier();
      if local < TOKENS {
        let shrink = exact_exp(tops[row] - best);
        let added = (part_sums[row] + part_sums[row + 32u]) + (part_sums[row + 64u] + part_sums[row + 96u]);
        sums[row] = sums[row] * shrink + added;
        shrinks[row] = shrink;
        tops[row] = best;
      }
      workgroupBarrier();

#unroll R 4
      let shrink_R = shrinks[four * 4u + R];
#unroll D DIMS
      out_R_D *= shrink_R;
#end
#end
#unroll D DIMS
      // Eight octets of each of 32 cells: two for each invocation.
      for (var half = 0u; half < 2u; half++) {
        let i = block + row;
        let o = D * 8u + half * 4u + quarter;
        var v = Octet(vec4<f32>(0.0), vec4<f32>(0.0));
        if i < n && o < octets {
          let cell = frame[list + (i >> 4u)] * 16u + (i & 15u);
          v = value_octet((cell * args.kv_heads + kv_head) * octets, o);
        }
        tile[row * 16u + (half * 4u + quarter) * 2u] = finite(v.a);
        tile[row * 16u + (half * 4u + quarter) * 2u + 1u] = finite(v.b);
      }
      workgroupBarrier();
      for (var c = 0u; c < CELLS; c++) {
        let weight = weights[c * 8u + four];
        let v = tile[c * 16u + lane];
#unroll R 4
        out_R_D += weight[R] * v;
#end
      }
      workgroupBarrier();
#end
    }
  }
  workgroupBarrier();

#unroll R 4
  if first + four * 4u + R <= last {
    let top = with_sink(head, tops[four * 4u + R]);
    let shrink = exact_exp(tops[four * 4u + R] - top);
    let factor = shrink * reciprocal(head, top, sums[four * 4u + R] * shrink);
    let at = args.out + t_R * args.out_stride + head * HEAD_DIM;
#unroll D DIMS
#unroll I 4
    if D * 64u + lane * 4u + I < HEAD_DIM {
      store(at + D * 64u + lane * 4u + I, out_R_D[I] * factor);
    }
#end
#end
  }
#end
}
