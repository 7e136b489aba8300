// Values of a run as i8, four to a word, and products by dot4I8Packed, one instruction for four products where the device has it
// (OpSDot, dot4add_i8packed). Activations are 16-bit integers in two bytes each, as on the CPU, and not 8-bit ones: the
// second dot costs little beside reading the weights, and the error stays below what the f32 kernels' tests allow for
// rounded activations, 250 times less than with 8 bits.
//
//   x . w = scale * (256 * (upper . w) + lower . w)
//
// lib/rounded says how a run of activations lies in the arena.
alias Four = u32;

// Four bytes below 128 less a bias, each by itself: the 128 that is added first and taken away by the last step keeps
// every byte from borrowing of its neighbour.
fn bytes(w: u32, bias: f32) -> Four {
  return (w + (128u - u32(bias)) * 0x01010101u) ^ 0x80808080u;
}

fn signed_bytes(w: u32) -> Four {
  return w;
}

fn run_dot(w: Run, s: vec4<f32>, x: u32) -> f32 {
  let a = bitcast<vec4<u32>>(arena[x]);
  let b = bitcast<vec4<u32>>(arena[x + 1u]);
  let c = bitcast<vec4<u32>>(arena[x + 2u]);
  let d = bitcast<vec4<u32>>(arena[x + 3u]);
  let sums = arena[x + 4u];
  let upper_first = dot4I8Packed(w.a, a.x) + dot4I8Packed(w.b, a.y) + dot4I8Packed(w.c, a.z) + dot4I8Packed(w.d, a.w);
  let upper_second = dot4I8Packed(w.e, b.x) + dot4I8Packed(w.f, b.y) + dot4I8Packed(w.g, b.z) + dot4I8Packed(w.h, b.w);
  let lower_first = dot4I8Packed(w.a, c.x) + dot4I8Packed(w.b, c.y) + dot4I8Packed(w.c, c.z) + dot4I8Packed(w.d, c.w);
  let lower_second = dot4I8Packed(w.e, d.x) + dot4I8Packed(w.f, d.y) + dot4I8Packed(w.g, d.z) + dot4I8Packed(w.h, d.w);
  // At most 16 * 128 * 32639 < 2^27.
  var sum = s.x * f32(256 * upper_first + lower_first) + s.z * f32(256 * upper_second + lower_second);
  if HAS_OFFSET {
    sum += s.y * sums.y + s.w * sums.z;
  }
  return sums.x * sum;
}
