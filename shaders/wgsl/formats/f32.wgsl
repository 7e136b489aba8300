// F32: plane 0 holds the values.
#import lib/run

const HAS_OFFSET = false;
const LARGEST = 0.0;

fn quants(i: u32, planes: vec4<u32>) -> Run {
  let at = planes.x + i * 8u;
  return Run(
    bitcast<vec4<f32>>(weights[at]),
    bitcast<vec4<f32>>(weights[at + 1u]),
    bitcast<vec4<f32>>(weights[at + 2u]),
    bitcast<vec4<f32>>(weights[at + 3u]),
    bitcast<vec4<f32>>(weights[at + 4u]),
    bitcast<vec4<f32>>(weights[at + 5u]),
    bitcast<vec4<f32>>(weights[at + 6u]),
    bitcast<vec4<f32>>(weights[at + 7u]),
  );
}

fn scales(i: u32, planes: vec4<u32>) -> vec4<f32> {
  return vec4<f32>(1.0, 0.0, 1.0, 0.0);
}
