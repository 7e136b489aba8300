//! `doctor`: the devices of this machine, how fast they read memory, and which one a model would run on.

use cchaha::Model;
use cchaha::kernels::{Cpu, CpuOptions};
use cchaha::shaders::{AdapterInfo, AdapterKind, Gpu, GpuOptions, adapters};
use clap::Args;
use serde_json::{Value, json};

use crate::args::{ModelArgs, ModelPath};
use crate::exit::Result;
use crate::output::{Out, TITLE, bytes};

const EXAMPLES: &str = "\
Examples:
  cchaha-run doctor
  cchaha-run doctor -m model.gguf

Generation reads every weight once for each token, so a model cannot go faster than reading speed / model size. A
software adapter is the processor itself without this program's SIMD kernels; auto never chooses it.";

/// Show the devices of this machine, their speed, and which one is used
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    #[command(flatten)]
    model: ModelPath,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A device and what was measured of it.
struct Probe {
    /// `None` for the processor.
    adapter: Option<AdapterInfo>,
    name: String,
    /// What was measured, or why nothing was.
    rates: std::result::Result<Rates, String>,
}

/// What was measured of a device.
#[derive(Clone, Copy, Default)]
struct Rates {
    /// Bytes read from memory in a second.
    read: f64,
    /// Products of 8-bit weights in a second, for 64 tokens at once.
    products: f64,
    /// Of the processor, such products in a second in a loop of nothing else.
    most_products: Option<f64>,
}

impl Probe {
    /// Whether `--device auto` would consider it.
    fn eligible(&self) -> bool {
        self.rates.is_ok() && self.adapter.as_ref().is_none_or(|info| info.kind != AdapterKind::Software)
    }
}

impl Doctor {
    pub(crate) fn run(self) -> Result {
        let args = ModelArgs::from(self.model);
        let model = args.model.is_some().then(|| args.open()).transpose()?;
        let mut probes = vec![processor()?];
        probes.extend(adapters().into_iter().map(graphics));
        let rate = |probe: &Probe| probe.rates.as_ref().map_or(0.0, |rates| rates.read);
        let eligible = probes.iter().filter(|probe| probe.eligible());
        let used = eligible.max_by(|a, b| rate(a).total_cmp(&rate(b))).map(|probe| probe.name.clone());
        let mut out = Out::new();
        if self.json {
            let devices: Vec<Value> = probes.iter().map(|probe| object(probe, model.as_ref())).collect();
            out.json(&json!({ "devices": devices, "auto": used }))?;
            return out.flush();
        }
        for probe in &probes {
            print(&mut out, probe, model.as_ref())?;
        }
        if probes.len() == 1 {
            out.line("no graphics adapter was found: install its driver, or go on with the processor")?;
        }
        out.line(format_args!("--device auto uses {}", used.as_deref().unwrap_or("the processor")))?;
        out.flush()
    }
}

fn processor() -> Result<Probe> {
    let cpu = Cpu::new(CpuOptions::default()).map_err(cchaha::Error::from)?;
    let name = cchaha::plan::Backend::name(&cpu);
    let (products, roofs) = (cchaha::products_per_s(&cpu)?, cpu.roofs());
    let rates = Rates { read: roofs.bytes_per_s, products, most_products: Some(roofs.ops_per_s / 2.0) };
    Ok(Probe { adapter: None, name, rates: Ok(rates) })
}

fn graphics(info: AdapterInfo) -> Probe {
    let measure = || {
        if let Some(reason) = &info.refused {
            return Err(reason.clone());
        }
        let gpu = Gpu::new(&GpuOptions { adapter: Some(&info.name), ..GpuOptions::new(cchaha::blocks) });
        let gpu = gpu.map_err(|error| error.message)?;
        let read = gpu.read_bytes_per_s().map_err(|error| error.message)?;
        let products = cchaha::products_per_s(&gpu).map_err(|error| error.to_string())?;
        Ok(Rates { read, products, most_products: None })
    };
    let rates = measure();
    Probe { name: info.name.clone(), adapter: Some(info), rates }
}

/// The most tokens a second the device can generate with this model.
fn tokens_per_s(rate: f64, model: &Model) -> f64 {
    rate / model.plan().weight_bytes() as f64
}

fn print(out: &mut Out, probe: &Probe, model: Option<&Model>) -> Result {
    out.styled_line(TITLE, &probe.name)?;
    if let Some(info) = &probe.adapter {
        out.line(format_args!("  kind        {}, {} ({})", info.kind, info.api, info.driver))?;
        let (binding, buffer) = (bytes(info.max_binding_bytes), bytes(info.max_buffer_bytes));
        out.line(format_args!("  limits      {binding} for a binding, {buffer} for a buffer"))?;
        let features = if info.features.is_empty() { "none".to_owned() } else { info.features.join(", ") };
        out.line(format_args!("  features    {features}"))?;
        if info.subgroup.1 > 0 {
            out.line(format_args!("  subgroups   {} to {}", info.subgroup.0, info.subgroup.1))?;
        }
    }
    match &probe.rates {
        Ok(rates) => {
            out.line(format_args!("  reads       {:.1} GB/s", rates.read / 1e9))?;
            let most = rates.most_products.map(|most| format!(", of {:.1} at best", most / 1e9));
            let (products, most) = (rates.products / 1e9, most.unwrap_or_default());
            out.line(format_args!("  multiplies  {products:.1} billion 8-bit weights/s{most}"))?;
            if let Some(model) = model {
                let (name, most) = (model.name(), tokens_per_s(rates.read, model));
                out.line(format_args!("  generates   at most {most:.1} tokens/s with {name}"))?;
            }
        }
        Err(reason) => out.line(format_args!("  refused     {reason}"))?,
    }
    if probe.adapter.as_ref().is_some_and(|info| info.kind == AdapterKind::Software) {
        out.line("  ranked      last: it is the processor without the SIMD kernels")?;
    }
    out.line("")
}

fn object(probe: &Probe, model: Option<&Model>) -> Value {
    let rates = probe.rates.as_ref().ok();
    let adapter = probe.adapter.as_ref().map(|info| {
        json!({ "kind": info.kind.to_string(), "api": info.api, "driver": info.driver,
                "max_binding_bytes": info.max_binding_bytes, "max_buffer_bytes": info.max_buffer_bytes,
                "workgroup_bytes": info.workgroup_bytes, "subgroup": [info.subgroup.0, info.subgroup.1],
                "features": info.features })
    });
    json!({ "name": probe.name, "adapter": adapter, "read_bytes_per_s": rates.map(|rates| rates.read),
            "products_per_s": rates.map(|rates| rates.products),
            "most_products_per_s": rates.and_then(|rates| rates.most_products), "refused": probe.rates.as_ref().err(),
            "most_tokens_per_s": rates.zip(model).map(|(rates, model)| tokens_per_s(rates.read, model)) })
}
