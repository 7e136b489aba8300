// Arguments and epilogue of the matrix kernels:
//
//   out[t, r] = sum_c weights[first + r, c] * x[t, c] (+ bias[r]) (+ residual[t, r])     r < rows, t < tokens
#import lib/frame

struct Args {
  x: u32,
  x_stride: u32,
  out: u32,
  out_stride: u32,
  residual: u32,
  residual_stride: u32,
  bias: u32,
  first: u32,
  rows: u32,
  runs: u32,
  tokens: u32,
  activation: u32,
  plane0: u32,
  plane1: u32,
  plane2: u32,
  plane3: u32,
  twin: u32,
}

var<immediate> args: Args;

fn planes() -> vec4<u32> {
  return vec4<u32>(args.plane0, args.plane1, args.plane2, args.plane3);
}

fn finish(t: u32, row: u32, sum: f32) {
  var y = sum;
  if args.bias != NONE {
    y += vectors[args.bias + row];
  }
  if args.residual != NONE {
    y += load(args.residual + t * args.residual_stride + row);
  }
  store(args.out + t * args.out_stride + row, y);
}
