// Any block format, transcoded at load without loss: plane 0 holds the integers as i8, plane 1 the f32 scale and
// offset of each half run.
#import lib/run8

const HAS_OFFSET = true;
const LARGEST = 128.0;

fn quants(i: u32, planes: vec4<u32>) -> Run {
  return run8(i, planes.x);
}

fn scales(i: u32, planes: vec4<u32>) -> vec4<f32> {
  return bitcast<vec4<f32>>(weights[planes.y + i]);
}
