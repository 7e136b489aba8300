// The greatest value of a workgroup and its index; ties: the lower index. Every invocation receives both.
#import lib/group

const LOWEST: f32 = -3.4028235e38;
const NOBODY: u32 = 0xffffffffu;

struct Best {
  value: f32,
  index: u32,
}

var<workgroup> best_values: array<f32, WIDTH>;
var<workgroup> best_indices: array<u32, WIDTH>;

// Whether a stands before b.
fn before(a: Best, b: Best) -> bool {
  if b.index == NOBODY {
    return a.index != NOBODY;
  }
  return a.index != NOBODY && (a.value > b.value || (a.value == b.value && a.index < b.index));
}

fn group_best(mine: Best, local: u32) -> Best {
  workgroupBarrier();
  best_values[local] = mine.value;
  best_indices[local] = mine.index;
  workgroupBarrier();
  for (var half = WIDTH / 2u; half > 0u; half /= 2u) {
    if local < half {
      let a = Best(best_values[local], best_indices[local]);
      let b = Best(best_values[local + half], best_indices[local + half]);
      if before(b, a) {
        best_values[local] = b.value;
        best_indices[local] = b.index;
      }
    }
    workgroupBarrier();
  }
  return Best(best_values[0], best_indices[0]);
}
