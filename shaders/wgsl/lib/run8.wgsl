// Runs of integers that are a byte each.
#import lib/run

fn run8(i: u32, plane: u32) -> Run {
  let p = weights[plane + i * 2u];
  let q = weights[plane + i * 2u + 1u];
  return Run(
    vec4<f32>(unpack4xI8(p.x)),
    vec4<f32>(unpack4xI8(p.y)),
    vec4<f32>(unpack4xI8(p.z)),
    vec4<f32>(unpack4xI8(p.w)),
    vec4<f32>(unpack4xI8(q.x)),
    vec4<f32>(unpack4xI8(q.y)),
    vec4<f32>(unpack4xI8(q.z)),
    vec4<f32>(unpack4xI8(q.w)),
  );
}
