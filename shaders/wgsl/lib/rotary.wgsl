// How a pair of values of a head turns, as the rotary table at `args.table` of the frame says.
#import lib/frame
#import lib/turns

// cos and sin of the angle of token `t`, times the magnitude.
fn rotation(pair: u32, t: u32) -> vec2<f32> {
  let entry = args.table + pair * 3u;
  let position = bitcast<i32>(frame[t * args.record + 4u + frame[entry + 2u]]);
  return args.magnitude * cos_sin(turn(position, frame[entry], frame[entry + 1u]));
}

// Where in the head the two values lie.
fn pair_places(pair: u32) -> vec2<u32> {
  if args.interleaved != 0u {
    return vec2<u32>(2u * pair, 2u * pair + 1u);
  }
  return vec2<u32>(pair, pair + args.pairs);
}

fn turned(pair: vec2<f32>, by: vec2<f32>) -> vec2<f32> {
  return vec2<f32>(pair.x * by.x - pair.y * by.y, pair.x * by.y + pair.y * by.x);
}
