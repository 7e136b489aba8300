//! `inspect`: what a model file holds.

use std::collections::BTreeMap;

use cchaha::gguf::{Array, Gguf, Value};
use clap::Args;
use serde_json::{Map, json};

use crate::args::{ModelArgs, ModelPath};
use crate::exit::Result;
use crate::output::{Align, Out, TITLE, Table, bytes, count, plural};

const EXAMPLES: &str = "\
Examples:
  cchaha-run inspect model.gguf
  cchaha-run inspect model.gguf --json | jq .metadata

With --json an array of more than 16 elements is {\"type\", \"len\", \"first\"} unless --full is given.";

/// Show a model file's metadata, tensors and sizes
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Inspect {
    #[command(flatten)]
    model: ModelPath,

    /// Show long arrays and texts in full
    #[arg(long)]
    full: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What all tensors of one format take.
#[derive(Default)]
struct Share {
    tensors: usize,
    values: u64,
    bytes: u64,
}

impl Share {
    fn add(&mut self, values: u64, bytes: u64) {
        self.tensors += 1;
        self.values += values;
        self.bytes += bytes;
    }

    fn bits_per_weight(&self) -> f64 {
        if self.values == 0 { 0.0 } else { self.bytes as f64 * 8.0 / self.values as f64 }
    }
}

impl Inspect {
    pub(crate) fn run(self) -> Result {
        let path = ModelArgs::from(self.model).path()?;
        let file = Gguf::open(&path).map_err(cchaha::Error::from)?;
        let mut formats = BTreeMap::<_, Share>::new();
        let mut total = Share::default();
        for tensor in file.tensors() {
            let (values, bytes) = (tensor.dims.n_values() as u64, tensor.data.len() as u64);
            formats.entry(tensor.format).or_default().add(values, bytes);
            total.add(values, bytes);
        }
        let mut out = Out::new();
        if self.json {
            let share = |share: &Share| {
                json!({ "tensors": share.tensors, "values": share.values, "bytes": share.bytes,
                        "bits_per_weight": share.bits_per_weight() })
            };
            let formats: Map<_, _> = formats.iter().map(|(f, s)| (f.name().to_owned(), share(s))).collect();
            let metadata: Map<_, _> =
                file.metadata().iter().map(|(k, v)| (k.to_owned(), to_json(v, self.full))).collect();
            let tensors = file.tensors().iter().map(|t| {
                json!({ "name": t.name, "format": t.format.name(), "dims": &*t.dims, "bytes": t.data.len(),
                        "offset": t.offset, "part": t.part })
            });
            out.json(&json!({
                "file": path.display().to_string(),
                "version": file.version(),
                "file_bytes": file.file_len(),
                "total": share(&total),
                "formats": formats,
                "metadata": metadata,
                "tensors": tensors.collect::<Vec<_>>(),
            }))?;
        } else {
            print(&file, &formats, &total, self.full, &mut out)?;
        }
        out.flush()
    }
}

fn print(
    file: &Gguf,
    formats: &BTreeMap<cchaha::plan::Format, Share>,
    total: &Share,
    full: bool,
    out: &mut Out,
) -> Result {
    for path in file.paths() {
        out.line(format_args!("file          {}", path.display()))?;
    }
    let text = |key| file.metadata().str(key).ok().flatten();
    out.line(format_args!("container     GGUF v{}, {}", file.version(), bytes(file.file_len())))?;
    out.line(format_args!("architecture  {}", text("general.architecture").unwrap_or("not named")))?;
    if let Some(name) = text("general.name") {
        out.line(format_args!("name          {}", name.escape_debug()))?;
    }
    out.line(format_args!(
        "weights       {} parameters in {}, {:.2} bits per weight",
        count(total.values as f64),
        bytes(total.bytes),
        total.bits_per_weight()
    ))?;

    out.line("")?;
    let mut table = Table::new(&[
        ("format", Align::Left),
        ("tensors", Align::Right),
        ("values", Align::Right),
        ("size", Align::Right),
        ("bits/weight", Align::Right),
    ]);
    for (format, share) in formats {
        table.row([
            format.to_string(),
            share.tensors.to_string(),
            count(share.values as f64),
            bytes(share.bytes),
            format!("{:.2}", share.bits_per_weight()),
        ]);
    }
    table.print(out)?;

    out.line("")?;
    out.styled_line(TITLE, format_args!("metadata, {}", plural(file.metadata().len(), "key")))?;
    let width = file.metadata().iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    for (key, value) in file.metadata().iter() {
        let key = key.escape_debug().to_string();
        if full {
            out.line(format_args!("{key:<width$}  {value:#}"))?;
        } else {
            out.line(format_args!("{key:<width$}  {value}"))?;
        }
    }

    out.line("")?;
    let mut table = Table::new(&[
        ("tensor", Align::Left),
        ("format", Align::Left),
        ("dims, columns first", Align::Right),
        ("size", Align::Right),
    ]);
    for tensor in file.tensors() {
        table.row([
            tensor.name.escape_debug().to_string(),
            tensor.format.to_string(),
            tensor.dims.to_string(),
            bytes(tensor.data.len() as u64),
        ]);
    }
    table.print(out)
}

/// The longest array that JSON shows whole without `--full`.
const SHORT_ARRAY: usize = 16;

fn to_json(value: &Value, full: bool) -> serde_json::Value {
    match value {
        Value::U8(v) => json!(v),
        Value::I8(v) => json!(v),
        Value::U16(v) => json!(v),
        Value::I16(v) => json!(v),
        Value::U32(v) => json!(v),
        Value::I32(v) => json!(v),
        Value::U64(v) => json!(v),
        Value::I64(v) => json!(v),
        Value::F32(v) => float(*v),
        Value::F64(v) => json!(v),
        Value::Bool(v) => json!(v),
        Value::Str(v) => json!(v),
        Value::Array(array) if full || array.len() <= SHORT_ARRAY => elements(array, usize::MAX),
        Value::Array(array) => json!({
            "type": array.element_name(),
            "len": array.len(),
            "first": elements(array, SHORT_ARRAY),
        }),
    }
}

/// The first `limit` elements as a JSON array.
fn elements(array: &Array, limit: usize) -> serde_json::Value {
    match array {
        Array::U8(v) => json!(v[..limit.min(v.len())]),
        Array::I8(v) => json!(v[..limit.min(v.len())]),
        Array::U16(v) => json!(v[..limit.min(v.len())]),
        Array::I16(v) => json!(v[..limit.min(v.len())]),
        Array::U32(v) => json!(v[..limit.min(v.len())]),
        Array::I32(v) => json!(v[..limit.min(v.len())]),
        Array::U64(v) => json!(v[..limit.min(v.len())]),
        Array::I64(v) => json!(v[..limit.min(v.len())]),
        Array::F32(v) => v.iter().take(limit).map(|&x| float(x)).collect(),
        Array::F64(v) => json!(v[..limit.min(v.len())]),
        Array::Bool(v) => json!(v[..limit.min(v.len())]),
        Array::Strings(v) => v.iter().take(limit).map(String::from_utf8_lossy).collect(),
        Array::Arrays(v) => v.iter().take(limit).map(|v| elements(v, usize::MAX)).collect(),
    }
}

/// The shortest decimal that reads back as this f32, not the digits of its f64 neighbour; null where JSON has none.
fn float(x: f32) -> serde_json::Value {
    json!(x.to_string().parse::<f64>().ok().filter(|x| x.is_finite()))
}
