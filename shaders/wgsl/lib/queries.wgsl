// The queries of `attend`, as the steps before it left them.
#import lib/attention
#import lib/group

fn prepare(first: u32, t: u32, split: u32, local: u32) {
  let octets = (HEAD_DIM + 7u) / 8u;
  for (var i = local; i < HEADS * octets * 8u; i += WIDTH) {
    let d = i % (octets * 8u);
    var value = 0.0;
    if d < HEAD_DIM {
      value = args.scale * load(args.q + t * args.q_stride + (first + i / (octets * 8u)) * HEAD_DIM + d);
    }
    queries[i >> 2u][i & 3u] = value;
  }
}
