// Formats of 16-bit values, two to a word in plane 0. A format says what `four(low, high)` of them are.
#import lib/run

const HAS_OFFSET = false;
const LARGEST = 0.0;

fn quants(i: u32, planes: vec4<u32>) -> Run {
  let at = planes.x + i * 4u;
  let p = weights[at];
  let q = weights[at + 1u];
  let r = weights[at + 2u];
  let s = weights[at + 3u];
  return Run(
    four(p.x, p.y),
    four(p.z, p.w),
    four(q.x, q.y),
    four(q.z, q.w),
    four(r.x, r.y),
    four(r.z, r.w),
    four(s.x, s.y),
    four(s.z, s.w),
  );
}

fn scales(i: u32, planes: vec4<u32>) -> vec4<f32> {
  return vec4<f32>(1.0, 0.0, 1.0, 0.0);
}
