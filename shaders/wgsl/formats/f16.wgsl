// F16: plane 0 holds the values, two to a word.
#import lib/halves

fn four(low: u32, high: u32) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(low), unpack2x16float(high));
}
