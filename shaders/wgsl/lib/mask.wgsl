// Who sees whom: the twin of MaskRule::visible. `cell` is a cell of the frame, `window` 0 where there is none.
const RULE_PINS: u32 = 1u;

fn visible(query: i32, cell: u32, window: u32, sinks: u32, rules: u32, selected: bool) -> bool {
  let position = i32(cell >> 1u) - 1;
  if position < 0 || position > query {
    return false;
  }
  if window == 0u || u32(query - position) < window || u32(position) < sinks {
    return true;
  }
  return selected || ((rules & RULE_PINS) != 0u && (cell & 1u) != 0u);
}
