// lib/coop without the instructions, so that kernels written for them run on every device: tests do that. Slow. An operand is where
// it lies in its panel. Of a result, invocation `lane` of a subgroup holds every `lanes`-th element; where it holds them is the result.
struct TileA {
  at: u32,
}

struct TileB {
  at: u32,
}

struct TileC {
  first: u32,
}

// The elements of all results of a block, enough for subgroups of 8 or more.
var<private> held: array<f32, BLOCK * BLOCK / 8u>;
var<private> holding: u32;
var<private> mine: vec2<u32>;

fn begin(lane: u32, lanes: u32) {
  mine = vec2<u32>(lane, lanes);
  holding = 0u;
}

fn token_tile(at: u32) -> TileA {
  return TileA(at);
}

fn row_tile(at: u32) -> TileB {
  return TileB(at);
}

fn result_tile(at: u32) -> TileC {
  let first = holding;
  holding += SIDE * SIDE / mine.y;
  for (var i = first; i < holding; i++) {
    let element = mine.x + (i - first) * mine.y;
    held[i] = results[at + element / SIDE * BLOCK + element % SIDE];
  }
  return TileC(first);
}

fn multiply_add(a: TileA, b: TileB, c: TileC) -> TileC {
  for (var element = mine.x; element < SIDE * SIDE; element += mine.y) {
    let token = a.at + element / SIDE * STRIDE;
    let row = b.at + element % SIDE * STRIDE;
    let i = c.first + element / mine.y;
    var sum = held[i];
    for (var k = 0u; k < SIDE; k++) {
      sum += f32(token_panel[token + k]) * f32(row_panel[row + k]);
    }
    held[i] = sum;
  }
  return c;
}

fn store_result(c: TileC, at: u32) {
  for (var element = mine.x; element < SIDE * SIDE; element += mine.y) {
    results[at + element / SIDE * BLOCK + element % SIDE] = held[c.first + element / mine.y];
  }
}
