// Weights and activations as half floats. Each row of weights, and each token's activations, is multiplied by a power of two of
// its own that brings its largest value to 16 .. 32; the result is divided by both. So nothing overflows: products stay
// below 2^10 and 16 of them below 2^14. What becomes smaller than the least normal half float, 2^-14, may count as zero:
// values below 2^-18 of the largest of their row or token. Rows and tokens that are nothing but values below 2^-100 are zero.
//
// One power for a whole row and not for each run: then sums of many runs can be added up as they are, which cooperative
// matrices need, and which spares other kernels a multiplication for each result and run.
enable f16;
#import lib/panels

override WIDTH: u32 = 256u;

// The largest size in each row and each token, as bits: those of floats that are not negative are in their order.
var<workgroup> row_sizes: array<atomic<u32>, ROWS>;
var<workgroup> token_sizes: array<atomic<u32>, TOKENS>;

fn size4(v: vec4<f32>) -> f32 {
  let a = abs(v);
  return max(max(a.x, a.y), max(a.z, a.w));
}

// The size of the largest weight of run `i`, or somewhat more. Formats of integers tell it by their scales.
fn run_size(i: u32) -> f32 {
  if LARGEST > 0.0 {
    let s = abs(scales(i, planes()));
    return max(s.x * LARGEST + s.y, s.z * LARGEST + s.w);
  }
  let w = quants(i, planes());
  let first = max(max(size4(w.a), size4(w.b)), max(size4(w.c), size4(w.d)));
  let second = max(max(size4(w.e), size4(w.f)), max(size4(w.g), size4(w.h)));
  return max(first, second);
}

// Fills row_sizes and token_sizes. Eight neighbouring invocations share a row, or a token.
fn measure(row0: u32, token0: u32, local: u32) {
  for (var i = local; i < ROWS; i += WIDTH) {
    atomicStore(&row_sizes[i], 0u);
  }
  for (var i = local; i < TOKENS; i += WIDTH) {
    atomicStore(&token_sizes[i], 0u);
  }
  workgroupBarrier();
  for (var i = local; i < min(ROWS, args.rows - min(row0, args.rows)) * 8u; i += WIDTH) {
    let first = (args.first + row0 + (i >> 3u)) * args.runs;
    var size = 0.0;
    for (var run = i & 7u; run < args.runs; run += 8u) {
      size = max(size, run_size(first + run));
    }
    atomicMax(&row_sizes[i >> 3u], bitcast<u32>(size));
  }
  for (var i = local; i < min(TOKENS, args.tokens - token0) * 8u; i += WIDTH) {
    let x = (args.x + (token0 + (i >> 3u)) * args.x_stride) >> 2u;
    var size = 0.0;
    for (var at = i & 7u; at < args.runs * 8u; at += 8u) {
      size = max(size, size4(arena[x + at]));
    }
    atomicMax(&token_sizes[i >> 3u], bitcast<u32>(size));
  }
  workgroupBarrier();
}

const FAINT: u32 = 27u;

// 16 / 2^e for a size from 2^e to 2^(e + 1), and its inverse; zero for those below 2^-100. An exponent has a bias of 127.
fn narrowing(size: u32) -> f32 {
  let e = max(size >> 23u, FAINT);
  return select(0.0, bitcast<f32>((258u - e) << 23u), (size >> 23u) >= FAINT);
}

fn row_factor(row: u32) -> f32 {
  return narrowing(atomicLoad(&row_sizes[row]));
}

fn token_factor(token: u32) -> f32 {
  return narrowing(atomicLoad(&token_sizes[token]));
}

fn widening(size: u32) -> f32 {
  let e = max(size >> 23u, FAINT);
  return select(0.0, bitcast<f32>((e - 4u) << 23u), (size >> 23u) >= FAINT);
}
