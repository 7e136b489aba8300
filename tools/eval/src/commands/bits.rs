//! `bits`: bits per byte of files, language by language, beside what `xz -9` makes of the same bytes.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use cchaha::text::Special;
use cchaha::{ScoreRequest, SessionOptions, score};
use cchaha_cli::args::positive;
use cchaha_cli::exit::{Failure, Result};
use cchaha_cli::interrupt::Stoppable;
use cchaha_cli::output::{Align, Out, Table};
use clap::{Args, ValueHint};
use serde_json::json;

use super::Setup;
use super::files::{Source, sources};
use crate::stats::bootstrap_ratio;
use crate::store::Store;
use crate::tally::Tally;

/// Bits per byte of source files, and what xz -9 needs for the same bytes
#[derive(Debug, Args)]
pub(crate) struct Bits {
    #[command(flatten)]
    setup: Setup,

    /// Source files the model has not been trained on, or folders of them
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath, required = true, num_args = 1..)]
    files: Vec<PathBuf>,

    /// Score the first N bytes of a file
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 8192)]
    max_bytes: usize,

    /// Most files of a language
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 50)]
    per_language: usize,
}

impl Bits {
    pub(crate) fn run(self) -> Result {
        let model = self.setup.model()?;
        let tokenizer = model.tokenizer();
        let sources = sources(&self.files, (1, self.max_bytes), self.per_language)?;
        let settings =
            json!({ "study": "bits", "model": self.setup.model_file(), "max_bytes": self.max_bytes });
        let mut store = Store::open(&self.setup.out, &settings)?;
        let stop = Stoppable::begin();
        let mut tally = Tally::begin("scoring", "files", &store, sources.iter().map(Source::key));
        let scored = sources.iter().try_for_each(|source| -> Result {
            let key = source.key();
            if store.get(&key).is_some() {
                return Ok(());
            }
            let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
            let mut tokens: Vec<u32> = bos.into_iter().collect();
            tokens.extend(tokenizer.encode(&source.text, Special::Plain));
            let mut options = SessionOptions { ..self.setup.options() };
            options.window.language = source.language;
            let scores = score(&model, &options, &tokens, &ScoreRequest::default(), &mut |_| stop.flow())?;
            let bits: f64 = scores.logprobs.iter().flatten().map(|ln| -ln / std::f64::consts::LN_2).sum();
            // A first token that nothing comes before is any of them.
            let first = if bos.is_none() { (tokenizer.vocab_len() as f64).log2() } else { 0.0 };
            let row = json!({
                "file": source.name, "language": source.language.name, "tokens": tokens.len(),
                "bytes": source.text.len(), "bits": bits + first,
            });
            store.put(&key, row)?;
            tally.add();
            Ok(())
        });
        tally.end(scored, &stop)?;
        self.report(&store, &sources)
    }

    fn report(&self, store: &Store, sources: &[Source]) -> Result {
        let mut languages: Vec<&str> = sources.iter().map(|source| source.language.name).collect();
        languages.sort_unstable();
        languages.dedup();
        let mut table = Table::new(&[
            ("language", Align::Left),
            ("files", Align::Right),
            ("bytes", Align::Right),
            ("bytes/token", Align::Right),
            ("bits/byte", Align::Right),
            ("95% interval over files", Align::Right),
            ("xz -9", Align::Right),
        ]);
        let mut figures = Vec::new();
        for language in languages.into_iter().chain(["all"]) {
            let chosen: Vec<&Source> =
                sources.iter().filter(|s| language == "all" || s.language.name == language).collect();
            let sum = |field: &str| -> f64 {
                chosen.iter().filter_map(|s| store.get(&s.key())?[field].as_f64()).sum()
            };
            let (bits, bytes, tokens) = (sum("bits"), sum("bytes"), sum("tokens"));
            let each: Vec<(f64, f64)> = chosen
                .iter()
                .filter_map(|s| store.get(&s.key()))
                .filter_map(|row| Some((row["bits"].as_f64()?, row["bytes"].as_f64()?)))
                .collect();
            let (low, high) = bootstrap_ratio(&each);
            let packed = xz(&chosen)?.map(|packed| 8.0 * packed as f64 / bytes);
            table.row([
                language.to_owned(),
                chosen.len().to_string(),
                format!("{bytes:.0}"),
                format!("{:.2}", bytes / tokens),
                format!("{:.4}", bits / bytes),
                format!("{low:.4} to {high:.4}"),
                packed.map_or_else(|| "no xz here".to_owned(), |bits| format!("{bits:.4}")),
            ]);
            figures.push(json!({
                "language": language, "files": chosen.len(), "bytes": bytes, "tokens": tokens,
                "bits_per_byte": bits / bytes, "interval": [low, high], "xz": packed,
            }));
        }
        let mut out = Out::new();
        table.print(&mut out)?;
        store.write("summary.json", &format!("{:#}\n", json!({ "rows": figures })))?;
        out.flush()
    }
}

/// Bytes that xz makes of all texts in one stream; `None` where there is no xz.
fn xz(sources: &[&Source]) -> Result<Option<usize>> {
    let child =
        Command::new("xz").args(["-9", "--stdout"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else { return Ok(None) };
    let text: String = sources.iter().map(|source| source.text.as_str()).collect();
    let mut stdin = child.stdin.take();
    // Written beside the reading, so that neither pipe fills up.
    let writer = std::thread::spawn(move || stdin.as_mut().map(|pipe| pipe.write_all(text.as_bytes())));
    let output = child.wait_with_output().map_err(Failure::other)?;
    let _ = writer.join();
    Ok(output.status.success().then_some(output.stdout.len()))
}
