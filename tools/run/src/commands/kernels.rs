//! `kernels`: the table of CPU kernels, and which rows this machine picks.

use cchaha::kernels::{Cpu, CpuOptions, Isa, Kernel, registry};
use cchaha::plan::{FORMATS, Format};
use cchaha::shaders;
use clap::Args;
use serde_json::{Value, json};

use crate::exit::{Failure, Result};
use crate::output::{Align, Out, Table};

const EXAMPLES: &str = "\
Examples:
  cchaha-run kernels
  cchaha-run kernels --isa generic
  cchaha-run kernels --exact --json
  cchaha-run kernels --gpu

The first row that fits an op, a weight format and the machine is used; MatMul rows also serve GatedMatMul and
Experts. --isa and --kernel of the other subcommands take the names shown here.";

/// Show the table of CPU kernels and which rows this machine picks
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Kernels {
    /// As picked with at most this instruction set
    #[arg(long, value_name = "ISA")]
    isa: Option<String>,

    /// As picked for f32 activations
    #[arg(long)]
    exact: bool,

    /// The GPU's kernels and layouts instead
    #[arg(long, conflicts_with_all = ["isa", "exact"])]
    gpu: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Kernels {
    pub(crate) fn run(self) -> Result {
        if self.gpu {
            return gpu(self.json);
        }
        let isa = self.isa.as_deref().map(isa).transpose()?;
        let cpu = Cpu::new(CpuOptions { isa, exact: self.exact, ..CpuOptions::default() })
            .map_err(cchaha::Error::from)?;
        let mut out = Out::new();
        if self.json {
            let kernels: Vec<Value> = registry().iter().map(|kernel| {
                let formats: Vec<_> = kernel.formats.iter().map(|format| format.name()).collect();
                let used: Vec<_> = used_for(&cpu, kernel).iter().flatten().map(|format| format.name()).collect();
                json!({ "name": kernel.name, "op": kernel.op, "isa": kernel.isa.name(), "exact": kernel.exact,
                        "formats": formats, "used": !used_for(&cpu, kernel).is_empty(), "used_for": used })
            }).collect();
            out.json(&json!({ "isa": cpu.isa().name(), "threads": cpu.threads(), "kernels": kernels }))?;
            return out.flush();
        }
        out.line(format_args!("this machine: {}, {} threads\n", cpu.isa(), cpu.threads()))?;
        let mut table = Table::new(&[
            ("kernel", Align::Left),
            ("op", Align::Left),
            ("needs", Align::Left),
            ("activations", Align::Left),
            ("weights", Align::Left),
            ("used here for", Align::Left),
        ]);
        for kernel in registry() {
            table.row([
                kernel.name.to_owned(),
                kernel.op.to_owned(),
                kernel.isa.to_string(),
                if kernel.exact { "f32" } else { "rounded" }.to_owned(),
                names(kernel.formats),
                match used_for(&cpu, kernel).as_slice() {
                    [] => "-".to_owned(),
                    [None] => "all".to_owned(),
                    formats => names(&formats.iter().copied().flatten().collect::<Vec<_>>()),
                },
            ]);
        }
        table.print(&mut out)?;
        out.flush()
    }
}

/// The rows of the GPU's two tables: kernels, and how weights of each format lie.
fn gpu(json: bool) -> Result {
    let mut out = Out::new();
    let rows = shaders::registry().iter();
    if json {
        let kernels: Vec<Value> = rows
            .map(|row| json!({ "name": row.name, "op": row.op, "needs": row.needs.feature().unwrap_or("nothing") }))
            .collect();
        let layouts: Vec<Value> = shaders::LAYOUTS
            .iter()
            .map(|row| {
                let formats: Vec<_> = row.formats.iter().map(|format| format.name()).collect();
                json!({ "name": row.name, "formats": formats })
            })
            .collect();
        let chosen: Vec<Value> = chosen_by_time()
            .iter()
            .flat_map(|(adapter, chosen)| {
                chosen.iter().map(move |c| {
                    json!({ "adapter": adapter, "op": c.op, "format": c.format.name(), "most_rows": c.most_rows,
                            "kernel": c.kernel.name, "bytes_per_s": c.bytes_per_s })
                })
            })
            .collect();
        out.json(&json!({ "kernels": kernels, "layouts": layouts, "chosen": chosen }))?;
        return out.flush();
    }
    let most = |rows| if rows == usize::MAX { "any".to_owned() } else { format!("to {rows}") };
    let mut table = Table::new(&[
        ("kernel", Align::Left),
        ("op", Align::Left),
        ("rows", Align::Left),
        ("weights", Align::Left),
    ]);
    for row in rows {
        table.row([row.name.to_owned(), row.op.to_owned(), most(row.most_rows), names(row.formats)]);
    }
    table.print(&mut out)?;
    out.line("")?;
    let mut table = Table::new(&[("layout", Align::Left), ("weights", Align::Left)]);
    for row in shaders::LAYOUTS {
        table.row([row.name.to_owned(), names(row.formats)]);
    }
    table.print(&mut out)?;
    for (adapter, chosen) in chosen_by_time() {
        out.line(format_args!("\nchosen by time on {adapter}"))?;
        let mut table = Table::new(&[
            ("op", Align::Left),
            ("weights", Align::Left),
            ("rows", Align::Left),
            ("kernel", Align::Left),
            ("GB/s", Align::Right),
        ]);
        for c in chosen {
            table.row([
                c.op.to_owned(),
                c.format.to_string(),
                most(c.most_rows),
                c.kernel.name.to_owned(),
                format!("{:.1}", c.bytes_per_s / 1e9),
            ]);
        }
        table.print(&mut out)?;
    }
    out.flush()
}

/// What earlier runs chose by time, by adapter.
fn chosen_by_time() -> Vec<(String, Vec<shaders::Chosen>)> {
    cchaha::cache_folder().map(|folder| shaders::kept_choices(&folder)).unwrap_or_default()
}

fn isa(name: &str) -> Result<Isa> {
    Isa::from_name(name).ok_or_else(|| {
        let names = Isa::ALL.map(Isa::name).join(", ");
        Failure::usage(format!("no instruction set is called {name:?}; choose one of {names}"))
    })
}

/// The formats for which `cpu` picks this row; one `None` where it is picked and has no formats.
fn used_for(cpu: &Cpu, kernel: &Kernel) -> Vec<Option<Format>> {
    let formats = match kernel.formats {
        [] => vec![None],
        formats => formats.iter().copied().map(Some).collect(),
    };
    let picks = |format: &Option<Format>| {
        cpu.kernel(kernel.op, *format).is_some_and(|picked| picked.name == kernel.name)
    };
    formats.into_iter().filter(picks).collect()
}

fn names(formats: &[Format]) -> String {
    match formats {
        [] => String::new(),
        all if all.len() == FORMATS.len() => "all".to_owned(),
        some => some.iter().map(|format| format.name()).collect::<Vec<_>>().join(" "),
    }
}
