//! `quantize IN OUT --type T`: the conversion.

use std::path::{Path, PathBuf};
use std::time::Instant;

use cchaha::Model;
use cchaha::plan::Format;
use cchaha_cli::args::{above_zero, positive};
use cchaha_cli::interrupt::Stoppable;
use cchaha_cli::output::{Align, Out, Table, bytes, count, plural, progress};
use clap::{Args, ValueHint};

use crate::budget::{Found, Search};
use crate::convert::Conversion;
use crate::evaluate::{Windows, backend, collect};
use crate::exit::{Failure, Result};
use crate::imatrix::Imatrix;
use crate::measured::Measured;
use crate::recipe::{MIXES, Mix, Override, Recipe};
use crate::source::{self, Source};
use crate::target;

const USAGE: &str = "quantize IN OUT --type TYPE";

/// Windows of 512 tokens the importance matrix is collected on, where none is given.
const IMATRIX_WINDOWS: usize = 16;

/// Windows every group of tensors is measured on, and tokens of each.
const SEARCH_WINDOWS: usize = 4;
const SEARCH_TOKENS: usize = 128;

/// What to convert, and into what.
#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// A GGUF file (of a split model any part), or a folder as Hugging Face lays it out
    #[arg(value_name = "IN", value_hint = ValueHint::AnyPath)]
    input: Option<PathBuf>,

    /// The GGUF file to write
    #[arg(value_name = "OUT", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,

    /// What most tensors become: F32 F16 BF16 Q8_0 Q6_K Q5_K_M Q5_K_S Q5_1 Q5_0 Q4_K_M Q4_K_S Q4_1 Q4_0 IQ4_NL IQ4_XS
    /// MXFP4 Q3_K_L Q3_K_M Q3_K_S Q2_K; embeddings, output and the most sensitive layers get more bits, as in llama.cpp
    #[arg(short = 't', long = "type", value_name = "TYPE", value_parser = Mix::from_name)]
    mix: Option<Mix>,

    /// The format of every tensor whose name holds NAME; may be repeated, the first that fits counts
    #[arg(long, value_name = "NAME=TYPE", value_parser = tensor_type)]
    tensor_type: Vec<Override>,

    /// The format of output.weight, or of the embedding that serves as such
    #[arg(long, value_name = "TYPE", value_parser = format)]
    output_type: Option<Format>,

    /// The format of token_embd.weight
    #[arg(long, value_name = "TYPE", value_parser = format)]
    embedding_type: Option<Format>,

    /// Give every tensor that is quantized the same format
    #[arg(long)]
    pure: bool,

    /// How much each column matters, as `quantize imatrix` or llama.cpp measured it; a size search without one
    /// measures it on --text
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    imatrix: Option<PathBuf>,

    /// Instead of --type: choose each tensor's format so that this many bits per weight lose the least on --text
    #[arg(long, value_name = "X", value_parser = above_zero, conflicts_with_all = ["mix", "to_size"], requires = "text")]
    to_bits_per_weight: Option<f32>,

    /// Instead of --type: choose each tensor's format so that a file of this size, as in 500M, loses the least on
    /// --text
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "mix", requires = "text")]
    to_size: Option<u64>,

    /// For a size search, a text like those the model is for, on which the loss is measured; 100 KB are plenty
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    text: Option<PathBuf>,

    /// Where a size search keeps what it measures: cut short it goes on there, and another size of the model takes seconds
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "text")]
    measured: Option<PathBuf>,

    /// Print what would be done, tensor by tensor, and write nothing
    #[arg(long)]
    dry_run: bool,

    /// Split the model into files with at most this much data, as in 2G or 500M
    #[arg(long, value_name = "SIZE", value_parser = size)]
    split_max_size: Option<u64>,

    /// Worker threads [default: one per core]
    #[arg(short = 'j', long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,

    /// Overwrite OUT, of a split model every part
    #[arg(short, long)]
    force: bool,
}

impl Convert {
    /// Runs the conversion.
    pub(crate) fn run(self) -> Result {
        let input =
            self.input.as_deref().ok_or_else(|| Failure::usage(format!("no input given: {USAGE}")))?;
        let source = source::open(input)?;
        let source = source.as_ref();
        if let Some(output) = self.output.as_deref().filter(|_| !self.dry_run) {
            target::check(source, output, self.split_max_size.is_some(), self.force)?;
        }
        let mut imatrix = self.imatrix.as_deref().map(Imatrix::read).transpose()?;
        let threads = self.threads.unwrap_or_else(cores);
        let (formats, file_type) = match (self.mix, self.data_bytes(source)) {
            (Some(mix), _) => {
                let recipe = Recipe {
                    mix,
                    overrides: self.tensor_type.clone(),
                    output: self.output_type,
                    embedding: self.embedding_type,
                    pure: self.pure,
                    imatrix: imatrix.is_some(),
                };
                (recipe.formats(source.metadata(), source.tensors())?, mix.file_type)
            }
            (None, Some(bytes)) => self.search(source, &mut imatrix, bytes, threads)?,
            (None, None) => return Err(Failure::usage("no type given: say --type Q4_K_M, or another")),
        };
        let split = self.split_max_size;
        let conversion = Conversion { source, formats, imatrix: imatrix.as_ref(), file_type, threads, split };
        warn(&conversion);
        if self.dry_run {
            return table(&conversion);
        }
        let output =
            self.output.as_deref().ok_or_else(|| Failure::usage(format!("no output given: {USAGE}")))?;
        target::check_room(output, conversion.sizes().iter().sum())?;
        let start = Instant::now();
        let written = conversion.write(output)?;
        if self.split_max_size.is_some() {
            target::remove_older_parts(output, &written);
        }
        let seconds = start.elapsed().as_secs_f64();
        let total = Totals::of(&conversion);
        let mut out = Out::new();
        for path in &written {
            out.line(format_args!("wrote {}", path.display()))?;
        }
        out.line(format_args!(
            "{} in {}, {:.2} bits per weight, in {seconds:.1} s",
            plural(conversion.formats.len(), "tensor"),
            bytes(total.after),
            total.bits_per_weight()
        ))?;
        out.flush()
    }

    /// Bytes that all tensors together may take, where a size is asked for.
    fn data_bytes(&self, source: &dyn Source) -> Option<u64> {
        let values: u64 = source.tensors().iter().map(|tensor| tensor.dims.n_values() as u64).sum();
        let by_bits = self.to_bits_per_weight.map(|bits| (f64::from(bits) * values as f64 / 8.0) as u64);
        // Beside the data a file has its metadata, as long as the source's and the checksums, and padding.
        let files =
            source.files().iter().filter_map(|file| std::fs::metadata(file).ok()).map(|file| file.len());
        let data: u64 =
            source.tensors().iter().filter_map(|t| t.dims.n_bytes(t.format)).map(|n| n as u64).sum();
        let header = files.sum::<u64>().saturating_sub(data) + 64 * source.tensors().len() as u64 + 1024;
        by_bits.or_else(|| self.to_size.map(|size| size.saturating_sub(header)))
    }

    /// Measures what serves best; collects the importance matrix first where none was given.
    fn search(
        &self,
        source: &dyn Source,
        imatrix: &mut Option<Imatrix>,
        bytes: u64,
        threads: usize,
    ) -> Result<(Vec<Format>, u32)> {
        let text = self.text.as_deref().ok_or_else(|| Failure::usage("no text given: say --text FILE"))?;
        let path = source.files().first().map_or(Path::new(source.name()), PathBuf::as_path);
        let model = Model::open(path)?;
        let backend = backend(self.threads)?;
        let stop = Stoppable::begin();
        if imatrix.is_none() {
            let windows = Windows::read(&model, text, 512, Some(IMATRIX_WINDOWS))?;
            let mut bar = progress("looking");
            let weights =
                collect(model.plan(), &backend, &windows, &stop, &mut |done, total| bar.at(done, total))?;
            *imatrix = Some(Imatrix { weights, ..Imatrix::default() });
        }
        let Some(imatrix) = imatrix else { return Err(Failure::other("no importance matrix")) };
        let windows = Windows::read(&model, text, SEARCH_TOKENS, None)?.spread(SEARCH_WINDOWS);
        let search = Search { source, model: &model, imatrix, windows: &windows, threads };
        let mut measured = Measured::open(self.measured.as_deref(), source.tensors(), &windows)?;
        let Found { formats, predicted } = search.run(&backend, bytes, &mut measured, &stop)?;
        tracing::info!("expected divergence {predicted:.5} nats on {}", text.display());
        Ok((formats.clone(), file_type(&formats, source)))
    }
}

/// `general.file_type` of a file of many formats: that of the one most values are in.
fn file_type(formats: &[Format], source: &dyn Source) -> u32 {
    let values = |wanted: Format| -> usize {
        let tensors = source.tensors().iter().zip(formats);
        tensors.filter(|(_, format)| **format == wanted).map(|(tensor, _)| tensor.dims.n_values()).sum()
    };
    let mixes = MIXES.iter().rev();
    mixes.max_by_key(|mix| values(mix.base)).map_or(0, |mix| mix.file_type)
}

/// Threads to use where none are asked for: all the machine has, since encoding is bound by arithmetic.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Says what would surprise.
fn warn(conversion: &Conversion<'_>) {
    let tensors = || conversion.source.tensors().iter().zip(&conversion.formats);
    let again = tensors().filter(|(t, f)| t.format.block_len() > 1 && t.format != **f).count();
    if again > 0 {
        tracing::warn!(
            "{} of the source are quantized already: quantizing again adds to the error; better start from F16 or BF16",
            plural(again, "tensor")
        );
    }
    if let Some(imatrix) = conversion.imatrix {
        let matrices = tensors().filter(|(_, f)| f.block_len() > 1);
        let missing = matrices.filter(|(t, _)| !imatrix.weights.contains_key(&t.name)).count();
        if missing > 0 {
            tracing::warn!("the importance matrix does not know {}", plural(missing, "tensor"));
        }
    }
}

/// Sums over all tensors.
struct Totals {
    values: u64,
    before: u64,
    after: u64,
}

impl Totals {
    fn of(conversion: &Conversion<'_>) -> Totals {
        let tensors = conversion.source.tensors();
        Totals {
            values: tensors.iter().map(|t| t.dims.n_values() as u64).sum(),
            before: tensors.iter().filter_map(|t| t.dims.n_bytes(t.format)).map(|n| n as u64).sum(),
            after: conversion.sizes().iter().sum(),
        }
    }

    fn bits_per_weight(&self) -> f64 {
        self.after as f64 * 8.0 / self.values as f64
    }
}

/// What `--dry-run` shows.
fn table(conversion: &Conversion<'_>) -> Result {
    let mut table = Table::new(&[
        ("tensor", Align::Left),
        ("dims, columns first", Align::Right),
        ("from", Align::Left),
        ("to", Align::Left),
        ("before", Align::Right),
        ("after", Align::Right),
    ]);
    let sizes = conversion.sizes();
    for ((tensor, format), size) in conversion.source.tensors().iter().zip(&conversion.formats).zip(&sizes) {
        table.row([
            tensor.name.clone(),
            tensor.dims.to_string(),
            tensor.format.to_string(),
            format.to_string(),
            bytes(tensor.dims.n_bytes(tensor.format).unwrap_or(0) as u64),
            bytes(*size),
        ]);
    }
    let total = Totals::of(conversion);
    let mut out = Out::new();
    table.print(&mut out)?;
    out.line("")?;
    out.line(format_args!("parameters       {}", count(total.values as f64)))?;
    out.line(format_args!("before           {}", bytes(total.before)))?;
    out.line(format_args!("after            {}", bytes(total.after)))?;
    out.line(format_args!("bits per weight  {:.3}", total.bits_per_weight()))?;
    let parts = conversion.parts().len();
    if parts > 1 {
        let last = target::paths(Path::new("OUT.gguf"), parts).pop().unwrap_or_default();
        out.line(format_args!("files            {parts}, up to {}", last.display()))?;
    }
    out.flush()
}

/// The format of this name.
pub(crate) fn format(name: &str) -> std::result::Result<Format, String> {
    Format::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = cchaha::plan::FORMATS.iter().map(|row| row.name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

/// `ffn_down=Q6_K`.
fn tensor_type(text: &str) -> std::result::Result<Override, String> {
    let (pattern, name) =
        text.split_once('=').ok_or("expected a part of a tensor's name and a type, as in ffn_down=Q6_K")?;
    if pattern.is_empty() {
        return Err("expected a part of a tensor's name before the =".into());
    }
    Ok(Override { pattern: pattern.into(), format: format(name)? })
}

/// `500M`, `2G`, `1.5GiB`, or plain bytes.
pub(crate) fn size(text: &str) -> std::result::Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("K", 1000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
    ];
    let unit = UNITS.iter().find(|(name, _)| text.ends_with(name));
    let (number, factor) =
        unit.map_or((text, 1), |(name, factor)| (&text[..text.len() - name.len()], *factor));
    let bytes = number.trim().parse::<f64>().ok().map(|number| number * factor as f64);
    match bytes {
        Some(bytes) if (1.0..1e18).contains(&bytes) => Ok(bytes as u64),
        _ => Err("expected a size, as in 500M, 2G or 1.5GiB".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_choices() {
        assert_eq!(size("2G"), Ok(2_000_000_000));
        assert_eq!(size("1.5GiB"), Ok(3 << 29));
        assert_eq!(size("4096"), Ok(4096));
        for text in ["", "G", "-1", "0", "nan", "1e30"] {
            assert!(size(text).is_err(), "{text}");
        }
        let chosen = tensor_type("ffn_down=q6_k").expect("a choice");
        assert_eq!((chosen.pattern.as_str(), chosen.format), ("ffn_down", Format::Q6_K));
        for text in ["ffn_down", "=Q6_K", "a=Q9"] {
            assert!(tensor_type(text).is_err(), "{text}");
        }
    }
}
