// A run of 4-bit indices. A format or a codebook says what `decoded(indices)` of four of them, a byte each, are.
#import lib/bits

fn coded(v: vec4<u32>) -> Run {
  return Run(
    decoded(low4(v.x)),
    decoded(high4(v.x)),
    decoded(low4(v.y)),
    decoded(high4(v.y)),
    decoded(low4(v.z)),
    decoded(high4(v.z)),
    decoded(low4(v.w)),
    decoded(high4(v.w)),
  );
}
