#import lib/math

const SILU: u32 = 0u;

// 0: silu. 1: gelu, tanh form, as x * sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)).
fn activate(kind: u32, x: f32) -> f32 {
  var t = x;
  if kind != SILU {
    t = 1.59576912 * (x + 0.044715 * x * x * x);
  }
  // exp of a large argument may overflow; beyond 88 the sigmoid is 0 to f32 anyway.
  if t < -88.0 {
    return x * exact_exp(t);
  }
  return x / (1.0 + exact_exp(-t));
}
