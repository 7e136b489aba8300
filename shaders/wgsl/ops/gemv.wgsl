// Matrix times COLUMNS vectors. A row belongs to LANES neighbouring invocations, which take its runs in turn; a workgroup has
// WIDTH / LANES rows. Activations are read through the cache: every workgroup reads the same ones.
#import lib/matmul
#import REDUCE
#import FORMAT

@compute @workgroup_size(WIDTH)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let lane = local % LANES;
  let row = (group.z * groups.x + group.x) * (WIDTH / LANES) + local / LANES;
  let base = (args.first + min(row, args.rows - 1u)) * args.runs;
#unroll T COLUMNS
  let t_T = group.y * COLUMNS + T;
  let x_T = (args.x + min(t_T, args.tokens - 1u) * args.x_stride) >> 2u;
  var sum_T = 0.0;
#end
  for (var run = lane; run < args.runs; run += LANES) {
    let w = quants(base + run, planes());
    let s = scales(base + run, planes());
#unroll T COLUMNS
    sum_T += run_dot(w, s, x_T + run * 8u);
#end
  }
#unroll T COLUMNS
  sum_T = lanes_sum(sum_T, local);
  if lane == 0u && row < args.rows && t_T < args.tokens {
    finish(t_T, row, sum_T);
  }
#end
}
