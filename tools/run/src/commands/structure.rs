//! `structure`: what the engine sees in a source file.

use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use cchaha::code::{Kind, Language, PLAIN, Structure, UNKNOWN, exact};
use clap::{Args, ValueHint};
use serde_json::json;

use crate::args::language;
use crate::exit::Result;
use crate::input;
use crate::output::{DIM, Out};

const EXAMPLES: &str = "\
Examples:
  cchaha-run structure src/main.rs
  cchaha-run structure --json src/main.rs
  git show HEAD:lib.py | cchaha-run structure --language python -

Every line has a kind (import, header, body, comment, string, blank), a depth (the functions, classes and the like around
its first byte) and, behind its text, a scope (their names). Imports and headers are pinned (*): the structure-aware
window keeps them in sight while there is room.";

/// How long the exact parser may take.
const BUDGET: Duration = Duration::from_secs(2);

/// Show the scopes, imports and headers of a source file
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Show {
    /// The file; - is stdin
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,

    /// Its language [default: by the file's extension; without one, what the text looks like]
    #[arg(short, long, value_name = "NAME", value_parser = language)]
    language: Option<&'static Language>,

    /// What the causal scanner sees, which the model's window goes by, rather than a parse of the whole file
    #[arg(long)]
    causal: bool,

    /// Print one JSON object: {"lines":[{"line":1,"kind":"import","depth":0,"scope":"","pinned":true},..]}
    #[arg(long)]
    json: bool,
}

fn style(kind: Kind) -> Style {
    match kind {
        Kind::Import => AnsiColor::Magenta.on_default(),
        Kind::Header => AnsiColor::Yellow.on_default().bold(),
        Kind::Comment => DIM,
        Kind::String => AnsiColor::Green.on_default(),
        Kind::Body | Kind::Blank => Style::new(),
    }
}

impl Show {
    pub(crate) fn run(self) -> Result {
        let source = input::file(&self.file)?;
        let language = self.language.unwrap_or_else(|| Language::of_file(&self.file, &source));
        if self.language.is_none() && [UNKNOWN.name, PLAIN.name].contains(&language.name) {
            anstream::eprintln!("{DIM}language not known; read by brackets and indentation{DIM:#}");
        }
        let parsed = if self.causal { None } else { exact(language, source.as_bytes(), BUDGET) };
        let structure = parsed.unwrap_or_else(|| Structure::scan(language, source.as_bytes()));
        let mut out = Out::new();
        if self.json {
            let lines = structure.lines.iter().enumerate().map(|(i, line)| {
                json!({
                    "line": i + 1,
                    "kind": line.kind.name(),
                    "depth": line.depth,
                    "scope": structure.path(line.scope),
                    "pinned": line.pinned(),
                })
            });
            out.json(&json!({ "lines": lines.collect::<Vec<_>>() }))?;
            return out.flush();
        }
        let width = structure.lines.len().to_string().len();
        let texts = source.split_inclusive('\n').map(|text| text.trim_end_matches(['\n', '\r']));
        for (i, (line, text)) in structure.lines.iter().zip(texts).enumerate() {
            let plain = Style::new();
            let (dim, style) = if out.styled() { (DIM, style(line.kind)) } else { (plain, plain) };
            let pin = if line.pinned() { '*' } else { ' ' };
            // Blank lines belong to nobody; a name may stand on several lines.
            let path = if line.kind == Kind::Blank { String::new() } else { structure.path(line.scope) };
            let path = path.split_whitespace().collect::<Vec<_>>().join(" ");
            let scope = if path.is_empty() { path } else { format!("  {dim}{path}{dim:#}") };
            out.line(format_args!(
                "{dim}{:>width$} {:7} {:2}{dim:#}{pin} {style}{text}{style:#}{scope}",
                i + 1,
                line.kind.name(),
                line.depth,
            ))?;
        }
        if stdout().is_terminal() {
            out.styled_line(DIM, "line, kind, depth, * if pinned in the code window, text, scope")?;
        }
        out.flush()
    }
}
