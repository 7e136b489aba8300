//! `fim-study`: lines, blocks and expressions taken out of files, and what the model writes in their place.

use std::ops::Range;
use std::path::PathBuf;

use cchaha::code::{Kind, Structure};
use cchaha::fim::{self, Join};
use cchaha::sample::SampleParams;
use cchaha::{ErrorKind, GenerateRequest, Session, SessionOptions, generate};
use cchaha_cli::args::positive;
use cchaha_cli::exit::{Failure, Result};
use cchaha_cli::interrupt::Stoppable;
use cchaha_cli::output::{Align, Out, Table};
use clap::{Args, ValueHint};
use serde_json::json;

use super::Setup;
use super::window::{Case, cases};
use crate::chart::{Bar, Measure, bars};
use crate::stats::{bootstrap, mean};
use crate::store::Store;
use crate::tally::Tally;

/// Exact match and edit similarity of removed lines, blocks and expressions
#[derive(Debug, Args)]
pub(crate) struct FimStudy {
    #[command(flatten)]
    setup: Setup,

    /// Source files the model has not been trained on, or folders of them
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath, required = true, num_args = 1..)]
    files: Vec<PathBuf>,

    /// Holes of each kind in a file
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 2)]
    holes: usize,

    /// Most files of a language
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 5)]
    per_language: usize,

    /// Take holes from the first N tokens of a file
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 3000)]
    max_tokens: usize,

    /// Most tokens of an answer
    #[arg(short, long, value_name = "N", value_parser = positive, default_value_t = 128)]
    n_predict: usize,
}

/// What is removed.
const KINDS: [&str; 4] = ["line", SINGLE_LINE, "block", "expression"];

/// A line, and no more than a line is asked for.
const SINGLE_LINE: &str = "line, --single-line";

/// Fewer tokens of a file are too few to take anything from.
const MIN_TOKENS: usize = 200;

/// What is removed from a file.
struct Hole<'a> {
    case: &'a Case,
    source: &'a str,
    kind: &'static str,
    bytes: Range<usize>,
}

impl Hole<'_> {
    fn key(&self) -> String {
        let Hole { case, kind, bytes, .. } = self;
        format!("{}/{} {kind} {}", case.language.name, case.name, bytes.start)
    }
}

/// Bytes of the file that can be removed.
fn holes(kind: &str, source: &str, structure: &Structure, n: usize) -> Vec<Range<usize>> {
    let end_of = |i: usize| {
        let end = structure.lines.get(i + 1).map_or(source.len(), |line| line.start);
        source[..end].trim_end_matches(['\r', '\n']).len().max(structure.lines[i].start)
    };
    let text_of = |i: usize| {
        let line = &source[structure.lines[i].start..end_of(i)];
        structure.lines[i].start + (line.len() - line.trim_start().len())..end_of(i)
    };
    let body: Vec<usize> = (1..structure.lines.len())
        .filter(|&i| structure.lines[i].kind == Kind::Body && structure.lines[i].depth > 0)
        .filter(|&i| text_of(i).len() > 8)
        .collect();
    let found: Vec<Range<usize>> = match kind {
        "line" | SINGLE_LINE => body.iter().map(|&i| text_of(i)).collect(),
        // Three to eight lines of one scope, whole.
        "block" => structure
            .scopes
            .iter()
            .filter_map(|scope| {
                let (first, last) = (scope.header.end as usize, scope.end? as usize);
                let last = last.min(structure.lines.len());
                let lines: Vec<usize> = (first..last)
                    .filter(|&i| structure.lines[i].depth > 0 && !text_of(i).is_empty())
                    .collect();
                let lines = lines
                    .strip_suffix(&[last - 1])
                    .filter(|_| source[text_of(last - 1)].starts_with('}'))
                    .unwrap_or(&lines);
                (3..=8)
                    .contains(&lines.len())
                    .then(|| text_of(lines[0]).start..text_of(lines[lines.len() - 1]).end)
            })
            .collect(),
        // What stands between the first brackets of a line.
        _ => body
            .iter()
            .filter_map(|&i| {
                let range = text_of(i);
                let line = &source[range.clone()];
                let open = line.find('(')?;
                let mut depth = 0;
                let close = line[open..].bytes().position(|byte| {
                    depth += i32::from(byte == b'(') - i32::from(byte == b')');
                    depth == 0
                })?;
                (close > 4).then(|| range.start + open + 1..range.start + open + close)
            })
            .collect(),
    };
    let step = (found.len() / (n + 1)).max(1);
    found.into_iter().skip(step / 2).step_by(step).take(n).collect()
}

/// `1 - edits / length of the longer` (Levenshtein 1966), over characters.
fn similarity(a: &str, b: &str) -> f64 {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut before = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = before + usize::from(x != y);
            before = row[j + 1];
            row[j + 1] = replaced.min(before + 1).min(row[j] + 1);
        }
    }
    let longer = a.len().max(b.len());
    if longer == 0 { 1.0 } else { 1.0 - row[b.len()] as f64 / longer as f64 }
}

impl FimStudy {
    pub(crate) fn run(self) -> Result {
        let model = self.setup.model()?;
        let tokenizer = model.tokenizer();
        let what = "to take holes from; give longer files";
        let cases = cases(&model, &self.files, (MIN_TOKENS, self.max_tokens), self.per_language, what)?;
        let bytes = cases.iter().map(|case| tokenizer.decode(&case.tokens, false));
        let texts: Vec<String> = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect();
        let holes = self.all_holes(&cases, &texts);
        if holes.is_empty() {
            return Err(Failure::usage("these files have no lines, blocks or expressions to take out"));
        }
        let settings = json!({
            "study": "fim", "model": self.setup.model_file(), "max_tokens": self.max_tokens, "n_predict": self.n_predict,
        });
        let mut store = Store::open(&self.setup.out, &settings)?;
        let ctx = (self.max_tokens + self.n_predict + 64).min(model.context());
        let mut session = Session::new(&model, &SessionOptions { ctx: Some(ctx), ..self.setup.options() })?;
        let stop = Stoppable::begin();
        let mut tally = Tally::begin("filling", "holes", &store, holes.iter().map(Hole::key));
        let filled = holes.iter().try_for_each(|hole| -> Result {
            let key = hole.key();
            if store.get(&key).is_some() {
                return Ok(());
            }
            let Hole { case, source, kind, bytes } = hole;
            let (prefix, suffix) = (&source[..bytes.start], &source[bytes.end..]);
            let prompt = fim::prompt(tokenizer, None, prefix, suffix)
                .map_err(|error| Failure::new(ErrorKind::Model, error.to_string()))?;
            session.set_prompt(&prompt.tokens, &mut |_| stop.flow())?;
            let join = Join::new(case.language, prefix, suffix);
            let request = GenerateRequest {
                max_tokens: self.n_predict,
                sample: SampleParams::greedy(),
                stop_tokens: prompt.ends,
                join: Some(if *kind == SINGLE_LINE { join.single_line() } else { join }),
                ..GenerateRequest::default()
            };
            let mut text = String::new();
            generate(&mut session, &request, &mut |piece| {
                text.push_str(piece.text);
                stop.flow()
            })?;
            if stop.requested() {
                return Err(Failure::interrupted());
            }
            let wanted = source[bytes.clone()].trim();
            let row = json!({
                "file": case.name, "language": case.language.name, "kind": kind,
                "exact": text.trim() == wanted, "similarity": similarity(text.trim(), wanted),
                "wanted": wanted, "answer": text,
            });
            store.put(&key, row)?;
            tally.add();
            Ok(())
        });
        tally.end(filled, &stop)?;
        self.report(&store, &holes)
    }

    /// The holes of all files, whose texts these are.
    fn all_holes<'a>(&self, cases: &'a [Case], texts: &'a [String]) -> Vec<Hole<'a>> {
        let mut all = Vec::new();
        for (case, source) in cases.iter().zip(texts) {
            let structure = Structure::scan(case.language, source.as_bytes());
            for kind in KINDS {
                let found = holes(kind, source, &structure, self.holes).into_iter();
                all.extend(found.map(|bytes| Hole { case, source, kind, bytes }));
            }
        }
        all
    }

    fn report(&self, store: &Store, holes: &[Hole<'_>]) -> Result {
        let mut table = Table::new(&[
            ("removed", Align::Left),
            ("holes", Align::Right),
            ("exact, %", Align::Right),
            ("edit similarity, %", Align::Right),
        ]);
        let mut figures = Vec::new();
        let mut picture = Vec::new();
        for kind in KINDS {
            let of_kind = holes.iter().filter(|hole| hole.kind == kind);
            let rows: Vec<_> = of_kind.filter_map(|hole| store.get(&hole.key())).collect();
            if rows.is_empty() {
                table.row([kind, "0", "-", "-"].map(str::to_owned));
                continue;
            }
            let exact: Vec<f64> =
                rows.iter().map(|row| 100.0 * f64::from(u8::from(row["exact"] == true))).collect();
            let similar: Vec<f64> =
                rows.iter().filter_map(|row| row["similarity"].as_f64()).map(|x| 100.0 * x).collect();
            let cells = [
                kind.to_owned(),
                rows.len().to_string(),
                format!("{:.1}", mean(&exact)),
                format!("{:.1}", mean(&similar)),
            ];
            table.row(cells);
            figures.push(json!({
                "kind": kind, "holes": rows.len(), "exact_percent": mean(&exact), "exact_interval": bootstrap(&exact),
                "similarity_percent": mean(&similar), "similarity_interval": bootstrap(&similar),
            }));
            let interval = Some(bootstrap(&similar));
            picture.push(Bar { label: kind.to_owned(), value: mean(&similar), interval });
        }
        let title = format!("{}: edit similarity of what was removed", self.setup.model_file());
        store.write("similarity.svg", &bars(&title, Measure::Percent, "holes", &picture))?;
        store.write("summary.json", &format!("{:#}\n", json!({ "rows": figures })))?;
        let mut out = Out::new();
        table.print(&mut out)?;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use cchaha::code::Language;

    use super::*;

    #[test]
    fn similarity_counts_edits() {
        assert_eq!(similarity("", ""), 1.0);
        assert_eq!(similarity("kitten", "sitting"), 1.0 - 3.0 / 7.0);
        assert_eq!(similarity("abc", ""), 0.0);
    }

    #[test]
    fn holes_are_lines_blocks_and_expressions() {
        let source =
            "def f(a):\n    b = g(a, 1, 2)\n    c = b + 1000\n    return h(b, c)\n\n\ndef k():\n    pass\n";
        let structure = Structure::scan(Language::named("python").unwrap(), source.as_bytes());
        let texts = |kind| -> Vec<&str> {
            holes(kind, source, &structure, 9).into_iter().map(|hole| &source[hole]).collect()
        };
        assert_eq!(texts("line"), ["b = g(a, 1, 2)", "c = b + 1000", "return h(b, c)"]);
        assert_eq!(texts("block"), ["b = g(a, 1, 2)\n    c = b + 1000\n    return h(b, c)"]);
        assert_eq!(texts("expression"), ["a, 1, 2", "b, c"]);
    }
}
