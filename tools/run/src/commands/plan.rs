//! `plan`: the steps of a forward pass and what they cost.

use cchaha::plan::{Op, Plan as Steps, WeightId};
use clap::Args;
use serde_json::json;

use crate::args::{ModelArgs, ModelPath, positive};
use crate::exit::Result;
use crate::output::{Align, Out, TITLE, Table, bytes, count, plural};

const EXAMPLES: &str = "\
Examples:
  cchaha-run plan model.gguf
  cchaha-run plan model.gguf --tokens 512 --depth 4096
  cchaha-run plan model.gguf --json | jq '.steps | map(.flops) | add'

Only matrix products and attention are counted as work; the rest is small beside them.";

/// Show the steps of one forward pass: op, weights, shapes, formats, bytes and FLOPs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Plan {
    #[command(flatten)]
    model: ModelPath,

    /// Tokens in the batch whose cost is shown
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 1)]
    tokens: usize,

    /// Cells in the KV cache that each token sees
    #[arg(short, long, visible_alias = "n-depth", value_name = "N", value_parser = positive, default_value_t = 512)]
    depth: usize,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Plan {
    pub(crate) fn run(self) -> Result {
        let model = ModelArgs::from(self.model).open()?;
        let plan = model.plan();
        let costs: Vec<_> =
            plan.steps.iter().map(|step| plan.cost(&step.op, self.tokens, self.depth)).collect();
        let mut total = cchaha::plan::Cost::default();
        costs.iter().for_each(|&cost| total += cost);
        let mut out = Out::new();
        if self.json {
            let steps: Vec<_> = plan
                .steps
                .iter()
                .zip(&costs)
                .map(|(step, cost)| {
                    let weights = weights(&step.op).into_iter().map(|id| {
                    let weight = plan.weight(id);
                    let shape = weight.shape;
                    json!({ "name": weight.name, "format": weight.format.name(), "bytes": weight.bytes.len(),
                            "experts": shape.experts, "rows": shape.rows, "cols": shape.cols })
                });
                    json!({ "op": step.op.name(), "layer": step.layer, "detail": detail(plan, &step.op),
                        "weights": weights.collect::<Vec<_>>(), "flops": cost.flops,
                        "weight_bytes": cost.weight_bytes, "kv_values": cost.kv_values })
                })
                .collect();
            out.json(&json!({
                "architecture": plan.architecture,
                "vocab": plan.vocab,
                "context": plan.context,
                "layers": plan.kv.len(),
                "tokens": self.tokens,
                "depth": self.depth,
                "steps": steps,
                "weight_bytes": plan.weight_bytes(),
                "kv_values_per_token": plan.kv_values_per_cell(),
                "total": { "flops": total.flops, "weight_bytes": total.weight_bytes, "kv_values": total.kv_values },
            }))?;
            return out.flush();
        }

        out.styled_line(
            TITLE,
            format_args!(
                "{}: {} in {}, vocabulary {}, context {}",
                plan.architecture,
                plural(plan.steps.len(), "step"),
                plural(plan.kv.len(), "layer"),
                plan.vocab,
                plan.context
            ),
        )?;
        out.line(format_args!(
            "cost of {} at depth {}; shapes are [rows, columns]\n",
            plural(self.tokens, "token"),
            self.depth
        ))?;
        let mut table = Table::new(&[
            ("layer", Align::Right),
            ("op", Align::Left),
            ("weight", Align::Left),
            ("shape", Align::Left),
            ("format", Align::Left),
            ("reads", Align::Right),
            ("FLOPs", Align::Right),
            ("detail", Align::Left),
        ]);
        for (step, cost) in plan.steps.iter().zip(&costs) {
            let ids = weights(&step.op);
            let weight = ids.first().map(|&id| plan.weight(id));
            let more = if ids.len() > 1 { format!(" +{}", ids.len() - 1) } else { String::new() };
            let blank_if_none =
                |x: f64, show: fn(f64) -> String| if x == 0.0 { String::new() } else { show(x) };
            table.row([
                step.layer.map_or(String::new(), |layer| layer.to_string()),
                step.op.name().to_owned(),
                weight.map_or(String::new(), |w| w.name.clone() + &more),
                weight.map_or(String::new(), |w| w.shape.to_string()),
                weight.map_or(String::new(), |w| w.format.to_string()),
                blank_if_none(cost.weight_bytes, |x| bytes(x as u64)),
                blank_if_none(cost.flops, count),
                detail(plan, &step.op),
            ]);
        }
        table.print(&mut out)?;
        out.line("")?;
        out.line(format_args!("reads of weights    {}", bytes(total.weight_bytes as u64)))?;
        out.line(format_args!("reads of the cache  {} values", count(total.kv_values)))?;
        out.line(format_args!("FLOPs               {}", count(total.flops)))?;
        out.line(format_args!("weights in the file {}", bytes(plan.weight_bytes())))?;
        out.line(format_args!("cache per token     {} values", plan.kv_values_per_cell()))?;
        out.flush()
    }
}

/// The weights an op reads, the largest first.
fn weights(op: &Op) -> Vec<WeightId> {
    match *op {
        Op::Embed { table, .. } => vec![table],
        Op::Norm { weight, bias, .. } | Op::MatMul { weight, bias, .. } => {
            [Some(weight), bias].into_iter().flatten().collect()
        }
        Op::GatedMatMul { gate, up, .. } => vec![gate, up],
        Op::Attend { sink_scores, .. } => sink_scores.into_iter().collect(),
        Op::Experts { gate, up, down, .. } => vec![gate, up, down],
        Op::Rope { .. }
        | Op::KvStore { .. }
        | Op::QueryStore { .. }
        | Op::SelectPages { .. }
        | Op::Activate { .. }
        | Op::Add { .. }
        | Op::Scale { .. }
        | Op::Softcap { .. }
        | Op::TakeRows { .. }
        | Op::TopK { .. } => Vec::new(),
    }
}

/// What else there is to know about an op, in a few words.
fn detail(plan: &Steps, op: &Op) -> String {
    let mask = |id: cchaha::plan::MaskId| match plan.masks[id.index()].window {
        Some(window) => format!("window {window}"),
        None => "causal".to_owned(),
    };
    let name = |id| plan.buffer(id).name;
    match *op {
        Op::Embed { scale, out, .. } if scale != 1.0 => format!("-> {}, times {scale}", name(out)),
        Op::Embed { out, .. } => format!("-> {}", name(out)),
        Op::Norm { kind, eps, x, out, .. } => format!("{} -> {}, {kind:?}, eps {eps:e}", name(x), name(out)),
        Op::MatMul { residual, x, out, .. } => match residual {
            Some(residual) => format!("{} -> {} (+ {})", name(x), name(out), name(residual)),
            None => format!("{} -> {}", name(x), name(out)),
        },
        Op::GatedMatMul { activation, x, out, .. } => format!("{} -> {}, {activation:?}", name(x), name(out)),
        Op::Rope { table, head_dim, x } => {
            let table = &plan.ropes[table.index()];
            format!("{}, {} of {head_dim} values, {:?}", name(x), table.rotary_dim(), table.layout)
        }
        Op::KvStore { slot, .. } => {
            let kv = plan.kv[slot.index()];
            format!("{} KV heads of {}", kv.n_kv_heads, kv.head_dim)
        }
        Op::QueryStore { q, .. } => format!("{}, of the last {} tokens", name(q), cchaha::plan::PAGE_CELLS),
        Op::SelectPages { mask: id, pages, .. } => format!("{pages} pages beside {}", mask(id)),
        Op::Attend { slot, n_heads, mask: id, out, .. } => {
            let kv = plan.kv[slot.index()];
            format!("-> {}, {n_heads} heads on {} of {}, {}", name(out), kv.n_kv_heads, kv.head_dim, mask(id))
        }
        Op::Activate { activation, x, up: Some(up), out } => {
            format!("{activation:?}({}) * {} -> {}", name(x), name(up), name(out))
        }
        Op::Activate { activation, x, up: None, out } => {
            format!("{activation:?}({}) -> {}", name(x), name(out))
        }
        Op::Add { a, b, out } => format!("{} + {} -> {}", name(a), name(b), name(out)),
        Op::Scale { factor, x } => format!("{} * {factor}", name(x)),
        Op::Softcap { cap, x } => format!("{}, cap {cap}", name(x)),
        Op::TakeRows { x, out } => format!("{} -> {}", name(x), name(out)),
        Op::Experts { top_k, activation, x, out, .. } => {
            format!("{} -> {}, best {top_k}, {activation:?}", name(x), name(out))
        }
        Op::TopK { x, k, .. } => format!("best {k} of {}", name(x)),
    }
}
