// Arguments of the attention kernels, and where partial results lie.
//
// From `k` on they are what lib/queries_raw needs.
//
// Part `s` of a token and query head is [largest score, sum of exps, weighted values of the head]; the exps are relative to
// the part's own largest score.
#import lib/rounded
#import lib/math

override HEAD_DIM: u32 = 64u;

struct Args {
  q: u32,
  q_stride: u32,
  out: u32,
  out_stride: u32,
  parts: u32,
  splits: u32,
  heads: u32,
  kv_heads: u32,
  record: u32,
  cells: u32,
  selection: u32,
  pages: u32,
  window: u32,
  sinks: u32,
  rules: u32,
  sink_scores: u32,
  scale: f32,
  softcap: f32,
  tokens: u32,
  twin: u32,
  k: u32,
  v: u32,
  pairs: u32,
  interleaved: u32,
  table: u32,
  magnitude: f32,
  q_norm: u32,
  k_norm: u32,
  eps: f32,
}

var<immediate> args: Args;

const LOWEST: f32 = -3.4028235e38;

fn part(t: u32, head: u32, split: u32) -> u32 {
  return args.parts + ((t * args.heads + head) * args.splits + split) * (HEAD_DIM + 2u);
}

// The largest score with the head's sink, if it has one: a score that joins the denominator and has no value.
fn with_sink(head: u32, top: f32) -> f32 {
  if args.sink_scores == NONE {
    return top;
  }
  return max(top, vectors[args.sink_scores + head]);
}

// 1 / denominator, from the sum of exps relative to `top` = with_sink(..). Zero where nothing is visible.
fn reciprocal(head: u32, top: f32, sum: f32) -> f32 {
  var all = sum;
  if args.sink_scores != NONE {
    all += exact_exp(vectors[args.sink_scores + head] - top);
  }
  return select(0.0, 1.0 / all, all > 0.0);
}
