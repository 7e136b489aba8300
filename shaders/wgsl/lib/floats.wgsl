// Values of a run as f32, four to a vector, and products with activations as they are.
alias Four = vec4<f32>;

// Four bytes less a bias.
fn bytes(w: u32, bias: f32) -> Four {
  return vec4<f32>(unpack4xU8(w)) - vec4<f32>(bias);
}

fn signed_bytes(w: u32) -> Four {
  return vec4<f32>(unpack4xI8(w));
}

// Sum of the four values of each of four vectors.
fn sum4(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> f32 {
  return dot((a + b) + (c + d), vec4<f32>(1.0));
}

// A run against the 32 activations from vec4 `x` of the arena. `s`: scale and offset of the first half, then of the second.
fn run_dot(w: Run, s: vec4<f32>, x: u32) -> f32 {
  let a = arena[x];
  let b = arena[x + 1u];
  let c = arena[x + 2u];
  let d = arena[x + 3u];
  let e = arena[x + 4u];
  let f = arena[x + 5u];
  let g = arena[x + 6u];
  let h = arena[x + 7u];
  var sum = s.x * ((dot(w.a, a) + dot(w.b, b)) + (dot(w.c, c) + dot(w.d, d)));
  sum += s.z * ((dot(w.e, e) + dot(w.f, f)) + (dot(w.g, g) + dot(w.h, h)));
  if HAS_OFFSET {
    sum += s.y * sum4(a, b, c, d) + s.w * sum4(e, f, g, h);
  }
  return sum;
}
