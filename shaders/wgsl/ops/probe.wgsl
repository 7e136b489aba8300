// Reads a buffer once, as fast as the device can: every invocation adds up `rows` vec4s that lie `stride` apart, so that neighbours
// read neighbouring bytes. What is read is stored only where it is a number no buffer of the probe holds.
#import lib/frame

@group(1) @binding(0) var<storage, read> weights: array<vec4<u32>>;

override WIDTH: u32 = 256u;

struct Args {
  rows: u32,
  stride: u32,
}

var<immediate> args: Args;

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  var at = group.x * WIDTH + local;
  var sum = vec4<u32>(0u);
  for (var i = 0u; i < args.rows; i++) {
    sum += weights[at];
    at += args.stride;
  }
  if dot(sum, vec4<u32>(1u)) == 1u {
    store(0u, 1.0);
  }
}
