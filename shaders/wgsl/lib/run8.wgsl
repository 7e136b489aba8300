// Runs of integers that are a byte each.
#import lib/run

fn run8(i: u32, plane: u32) -> Run {
  let p = weights[plane + i * 2u];
  let q = weights[plane + i * 2u + 1u];
  return Run(
    signed_bytes(p.x),
    signed_bytes(p.y),
    signed_bytes(p.z),
    signed_bytes(p.w),
    signed_bytes(q.x),
    signed_bytes(q.y),
    signed_bytes(q.z),
    signed_bytes(q.w),
  );
}
