//! `quantize verify FILE`: whether a file is whole, and still what was written.

use std::path::PathBuf;

use cchaha::gguf::{Array, Gguf, TensorInfo, Value};
use cchaha::kernels::formats::dequantize;
use cchaha_cli::args::positive;
use cchaha_cli::output::{Out, Unit, bytes, plural, progress_in};
use clap::{Args, ValueHint};
use serde_json::json;

use crate::checksum::{ALGORITHM, ALGORITHM_KEY, Checksum, TENSORS_KEY};
use crate::commands::convert::cores;
use crate::exit::{Failure, Result};
use crate::pipeline::ordered;

const EXAMPLES: &str = "\
Examples:
  quantize verify model.gguf
  quantize verify model.gguf --json

Every count, length, offset and type is checked. Files that quantize wrote carry a checksum of every tensor, and those
are compared; of others every block is decoded instead, and infinities and NaN are refused.";

/// Check a file, and its tensors against their checksums
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Verify {
    /// GGUF file; of a split model any part
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,

    /// Worker threads [default: one per core]
    #[arg(short = 'j', long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Verify {
    /// Checks it.
    pub(crate) fn run(self) -> Result {
        let file = Gguf::open(crate::source::local(&self.file)?).map_err(cchaha::Error::from)?;
        let sums = sums(&file)?;
        let tensors = file.tensors();
        let total = tensors.iter().map(|t| t.data.len()).sum();
        let mut bar = progress_in(Unit::Bytes, "checking");
        let threads = self.threads.unwrap_or_else(cores);
        let check = |i: usize| match &sums {
            Some(sums) => matches(&tensors[i], sums[i]),
            None => is_sound(&tensors[i]),
        };
        let damage: Vec<String> = ordered(threads, tensors.len(), check, |next| {
            let mut done = 0;
            let mut damage = Vec::new();
            for tensor in tensors {
                damage.extend(next().err());
                done += tensor.data.len();
                bar.at(done, total);
            }
            damage
        });
        drop(bar);
        if let Some(first) = damage.first() {
            let more = match damage.len() {
                1 => String::new(),
                n => format!(" (and {} more)", plural(n - 1, "tensor")),
            };
            return Err(Failure::model(format!(
                "{}: {first}{more}; get the file again",
                self.file.display()
            )));
        }
        let mut out = Out::new();
        let checked =
            if sums.is_some() { "checksums match" } else { "no checksums in the file, all blocks decode" };
        if self.json {
            out.json(&json!({
                "file": self.file.display().to_string(),
                "tensors": tensors.len(),
                "bytes": total,
                "checksums": sums.is_some(),
                "ok": true,
            }))?;
        } else {
            out.line(format_args!(
                "{}: {} in {}, {checked}",
                self.file.display(),
                plural(tensors.len(), "tensor"),
                bytes(total as u64)
            ))?;
        }
        out.flush()
    }
}

/// The checksums the file carries.
fn sums(file: &Gguf) -> Result<Option<Vec<u64>>> {
    let wrong = |what: String| Failure::model(format!("{}: {what}", file.name()));
    let Some(algorithm) = file.metadata().str(ALGORITHM_KEY).map_err(cchaha::Error::from)? else {
        return Ok(None);
    };
    if algorithm != ALGORITHM {
        return Err(wrong(format!("checksums are of kind {algorithm:?}, this version knows {ALGORITHM}")));
    }
    match file.metadata().get(TENSORS_KEY) {
        Some(Value::Array(Array::U64(sums))) if sums.len() == file.tensors().len() => Ok(Some(sums.clone())),
        _ => Err(wrong(format!(
            "{TENSORS_KEY} does not hold a checksum for each of {} tensors",
            file.tensors().len()
        ))),
    }
}

fn matches(tensor: &TensorInfo, expected: u64) -> std::result::Result<(), String> {
    if Checksum::of(tensor.data.as_slice()) == expected {
        return Ok(());
    }
    let (name, part, offset) = (&tensor.name, tensor.part + 1, tensor.offset);
    Err(format!("{name} (part {part}, from byte {offset}) is damaged: its checksum differs"))
}

/// That every value is a number.
fn is_sound(tensor: &TensorInfo) -> std::result::Result<(), String> {
    let cols = tensor.dims.cols();
    let mut values = vec![0.0; cols];
    let bytes = tensor.data.as_slice().chunks_exact(tensor.data.len() / tensor.dims.rows());
    for (row, bytes) in bytes.enumerate() {
        dequantize(tensor.format, bytes, &mut values);
        if let Some(column) = values.iter().position(|x| !x.is_finite()) {
            return Err(format!(
                "{} is damaged: row {row}, column {column} is infinite or not a number",
                tensor.name
            ));
        }
    }
    Ok(())
}
