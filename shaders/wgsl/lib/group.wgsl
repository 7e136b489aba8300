// Sums and maxima over a whole workgroup of WIDTH invocations (a power of two); every invocation receives the result.
override WIDTH: u32 = 64u;

var<workgroup> group_values: array<f32, WIDTH>;

fn group_sum(value: f32, local: u32) -> f32 {
  workgroupBarrier();
  group_values[local] = value;
  workgroupBarrier();
  for (var half = WIDTH / 2u; half > 0u; half /= 2u) {
    if local < half {
      group_values[local] += group_values[local + half];
    }
    workgroupBarrier();
  }
  return group_values[0];
}

fn group_max(value: f32, local: u32) -> f32 {
  workgroupBarrier();
  group_values[local] = value;
  workgroupBarrier();
  for (var half = WIDTH / 2u; half > 0u; half /= 2u) {
    if local < half {
      group_values[local] = max(group_values[local], group_values[local + half]);
    }
    workgroupBarrier();
  }
  return group_values[0];
}
