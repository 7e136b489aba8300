// Products of square matrices that the invocations of a subgroup hold together, in the instructions the hardware has for them.
// lib/coop8 and lib/coop16 say what TileA, TileB and TileC are; lib/coop_plain does the same in plain WGSL.

// Before the first result of a block: who calls. Of no interest here.
fn begin(lane: u32, lanes: u32) {}

// [token, column]
fn token_tile(at: u32) -> TileA {
  return coopLoadT<TileA>(&token_panel[at], STRIDE);
}

// [column, row of weights]: the panel holds its transpose.
fn row_tile(at: u32) -> TileB {
  return coopLoad<TileB>(&row_panel[at], STRIDE);
}

fn result_tile(at: u32) -> TileC {
  return coopLoadT<TileC>(&results[at], BLOCK);
}

fn multiply_add(a: TileA, b: TileB, c: TileC) -> TileC {
  return coopMultiplyAdd(a, b, c);
}

fn store_result(c: TileC, at: u32) {
  coopStoreT(c, &results[at], BLOCK);
}
