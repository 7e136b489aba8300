// Sums over LANES neighbouring invocations through workgroup memory. Only the first of them receives the sum.
override WIDTH: u32 = 64u;
override LANES: u32 = 8u;

var<workgroup> lane_values: array<f32, WIDTH>;

fn lanes_sum(value: f32, local: u32) -> f32 {
  workgroupBarrier();
  lane_values[local] = value;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if local % LANES < half {
      lane_values[local] += lane_values[local + half];
    }
    workgroupBarrier();
  }
  return lane_values[local];
}
