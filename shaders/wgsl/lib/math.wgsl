// Functions whose accuracy does not depend on the driver: WGSL lets exp, tanh, sin and cos be off by far more than
// a rounding.

// exp to about 2 roundings. exp(x) = 2^n exp(r), |r| <= ln 2 / 2, with ln 2 in two parts (Cody and Waite) and a
// polynomial of degree 7.
fn exact_exp(x: f32) -> f32 {
  if x < -104.0 {
    return 0.0;
  }
  if x > 88.7228317 {
    return bitcast<f32>(bitcast<u32>(max(x, 1.0)) | 0x7f800000u) * 0.0 + 3.4028235e38;
  }
  let n = round(x * 1.44269502);
  let r = fma(n, -1.90465421e-9, fma(n, -0.693147182, x));
  var p = 1.98412698e-4;
  p = fma(p, r, 1.38888889e-3);
  p = fma(p, r, 8.33333333e-3);
  p = fma(p, r, 4.16666667e-2);
  p = fma(p, r, 0.166666667);
  p = fma(p, r, 0.5);
  p = fma(p * r, r, r) + 1.0;
  // In two steps, so that results below the least normal number do not lose their exponent.
  let i = i32(n);
  let half = i / 2;
  return p * bitcast<f32>(u32(half + 127) << 23u) * bitcast<f32>(u32(i - half + 127) << 23u);
}

// tanh to a few roundings: a series where 1 - 2 / (e^2x + 1) would cancel.
fn exact_tanh(x: f32) -> f32 {
  let a = abs(x);
  if a > 9.1 {
    return select(-1.0, 1.0, x > 0.0);
  }
  if a < 0.25 {
    let s = x * x;
    var p = -8.86323553e-3;
    p = fma(p, s, 2.18694885e-2);
    p = fma(p, s, -5.39682540e-2);
    p = fma(p, s, 0.133333333);
    p = fma(p, s, -0.333333333);
    return fma(x * s, p, x);
  }
  let y = 1.0 - 2.0 / (exact_exp(2.0 * a) + 1.0);
  return select(-y, y, x > 0.0);
}
