// The 16 numbers of IQ4_NL and IQ4_XS: -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113, four bytes to a word. A word is
// chosen by selects: indexing an array by a value from memory would put the array in memory too.
#import lib/coded

// Four indices, a byte each.
fn decoded(indices: u32) -> vec4<f32> {
  let i = unpack4xU8(indices);
  let odd = (i & vec4<u32>(4u)) != vec4<u32>(0u);
  let low = select(vec4<u32>(0xbfad9881u), vec4<u32>(0xf6eaddcfu), odd);
  let high = select(vec4<u32>(0x26190d01u), vec4<u32>(0x71594535u), odd);
  let words = select(low, high, i >= vec4<u32>(8u));
  let shifted = words << (vec4<u32>(24u) - (i & vec4<u32>(3u)) * vec4<u32>(8u));
  return vec4<f32>(bitcast<vec4<i32>>(shifted) >> vec4<u32>(24u));
}
