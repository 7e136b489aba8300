// activation(gate x) * (up x) for COLUMNS vectors; shaped like gemv. The weights hold `rows` rows of the gate, then as many
// of up, from row `first` on. Where the twin of the output is wanted, a workgroup has 32 rows, which are a run of it.
#import lib/matmul
#import lib/rounded
#import REDUCE
#import lib/activation
#import FORMAT

@compute @workgroup_size(WIDTH)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let lane = local % LANES;
  let row0 = (group.z * groups.x + group.x) * (WIDTH / LANES);
  let row = row0 + local / LANES;
  let gate = (args.first + min(row, args.rows - 1u)) * args.runs;
  let up = gate + args.rows * args.runs;
#unroll T COLUMNS
  let t_T = group.y * COLUMNS + T;
  let x_T = (args.x + min(t_T, args.tokens - 1u) * args.x_stride) >> 2u;
  var gate_T = 0.0;
  var up_T = 0.0;
#end
  for (var run = lane; run < args.runs; run += LANES) {
    let w = quants(gate + run, planes());
    let s = scales(gate + run, planes());
#unroll T COLUMNS
    gate_T += run_dot(w, s, x_T + run * 8u);
#end
    let v = quants(up + run, planes());
    let r = scales(up + run, planes());
#unroll T COLUMNS
    up_T += run_dot(v, r, x_T + run * 8u);
#end
  }
#unroll T COLUMNS
  gate_T = lanes_sum(gate_T, local);
  up_T = lanes_sum(up_T, local);
  if lane == 0u && row < args.rows && t_T < args.tokens {
    finish(t_T, row, activate(args.activation, gate_T) * up_T);
  }
#end
  let t = group.y * COLUMNS + local;
  let mine = select(0u, 1u, local < COLUMNS && t < args.tokens && row0 < args.rows);
  round_written(args.out, args.twin, t * args.out_stride + row0, mine, 0u, 1u);
}
