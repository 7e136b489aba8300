// Rotary angles in turns, as 64-bit fixed-point fractions: a position times a frequency is then exact modulo one turn,
// where an f32 product at position 100,000 would be off by 0.004 radians.
#import lib/math

// The upper 32 bits of a * b.
fn mul_high(a: u32, b: u32) -> u32 {
  let a_low = a & 0xffffu;
  let a_high = a >> 16u;
  let b_low = b & 0xffffu;
  let b_high = b >> 16u;
  let middle = a_high * b_low + ((a_low * b_low) >> 16u);
  let other = a_low * b_high + (middle & 0xffffu);
  return a_high * b_high + (middle >> 16u) + (other >> 16u);
}

// position * (high * 2^-32 + low * 2^-64) turns, its fraction in units of 2^-32.
fn turn(position: i32, high: u32, low: u32) -> u32 {
  let p = bitcast<u32>(position);
  // A negative position is 2^32 too large as u32, which the low word carries into the fraction.
  return p * high + mul_high(p, low) - select(0u, low, position < 0);
}

// (cos, sin) of a fraction of a turn: an eighth of a turn around the nearest quarter, then Taylor's series. The angle is
// carried with the rest that its f32 does not hold, so that both are good to a rounding or two.
fn cos_sin(fraction: u32) -> vec2<f32> {
  let quarter = (fraction + 0x20000000u) >> 30u;
  let from_quarter = bitcast<i32>(fraction - (quarter << 30u));
  let high = f32(from_quarter & ~0xff);
  let low = f32(from_quarter & 0xff);
  // 2 pi / 2^32 in two parts.
  let x = high * 1.46291812e-9;
  let rest = fma(high, 1.46291812e-9, -x) + fma(high, -4.07094043e-17, low * 1.46291812e-9);
  let s = x * x;
  var q = 2.75573192e-6;
  q = fma(q, s, -1.98412698e-4);
  q = fma(q, s, 8.33333333e-3);
  q = fma(q, s, -0.166666667);
  let sine = fma(rest, fma(-0.5, s, 1.0), fma(x * s, q, x));
  var p = 2.48015873e-5;
  p = fma(p, s, -1.38888889e-3);
  p = fma(p, s, 4.16666667e-2);
  p = fma(p, s, -0.5);
  let cosine = fma(-rest, x, fma(p, s, 1.0));
  if quarter == 0u {
    return vec2<f32>(cosine, sine);
  }
  if quarter == 1u {
    return vec2<f32>(-sine, cosine);
  }
  if quarter == 2u {
    return vec2<f32>(-cosine, -sine);
  }
  return vec2<f32>(sine, -cosine);
}
