// Sums over LANES neighbouring invocations by subgroup shuffles, without workgroup memory or barriers. LANES is at most the
// smallest subgroup of the device. Subgroups are taken to be neighbouring invocations in order, as every driver lays out
// workgroups of one dimension; the check at load would notice one that does not.
override WIDTH: u32 = 64u;
override LANES: u32 = 8u;

fn lanes_sum(value: f32, local: u32) -> f32 {
  var sum = value;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    sum += subgroupShuffleXor(sum, half);
  }
  return sum;
}
