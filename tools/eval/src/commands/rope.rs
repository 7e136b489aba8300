//! `rope-study`: bits per byte at and beyond the length a model was trained for, rule by rule.

use std::path::PathBuf;

use cchaha::{Model, RopeKind, RopeOptions, SessionOptions};
use cchaha_cli::args::positive;
use cchaha_cli::exit::{Failure, Result};
use cchaha_cli::interrupt::Stoppable;
use cchaha_cli::output::{Align, Out, Table};
use clap::{Args, ValueHint};
use serde_json::json;

use super::Setup;
use super::window::{Case, bits_per_byte, cases};
use crate::chart::{Bar, Measure, bars};
use crate::stats::{bootstrap, mean};
use crate::store::Store;
use crate::tally::Tally;

/// Bits per byte at 1, 2 and 4 times the trained length, for every rotary rule and for the controls of `scope`
#[derive(Debug, Args)]
pub(crate) struct RopeStudy {
    #[command(flatten)]
    setup: Setup,

    /// Source files, or folders of them
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath, required = true, num_args = 1..)]
    files: Vec<PathBuf>,

    /// Multiples of the trained length, comma-separated
    #[arg(long, value_name = "N", value_parser = positive, value_delimiter = ',', default_value = "1,2,4")]
    lengths: Vec<usize>,

    /// Most texts of a language; a text is as many files after one another as it takes
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 3)]
    per_language: usize,
}

/// A rule or a control.
struct Rule {
    name: &'static str,
    options: RopeOptions,
}

const fn rule(name: &'static str, kind: RopeKind, sigma: Option<f64>) -> Rule {
    Rule { name, options: RopeOptions { kind, split: None, sigma, shuffled: false } }
}

/// `sigma = 0` leaves slow pairs unturned; shuffled scope positions keep their values and lose their meaning.
const RULES: [Rule; 6] = [
    rule("linear", RopeKind::Linear, None),
    rule("linear-scale", RopeKind::LinearScale, None),
    rule("yarn", RopeKind::Yarn, None),
    rule("scope", RopeKind::Scope, None),
    rule("scope, sigma 0", RopeKind::Scope, Some(0.0)),
    Rule {
        name: "scope, shuffled",
        options: RopeOptions { kind: RopeKind::Scope, split: None, sigma: None, shuffled: true },
    },
];

impl RopeStudy {
    pub(crate) fn run(self) -> Result {
        let model = self.setup.model()?;
        let trained = model.context();
        let most = trained.saturating_mul(self.lengths.iter().max().copied().unwrap_or(1));
        let cases = joined(&model, &self.files, most, self.per_language)?;
        let settings = json!({ "study": "rope", "model": self.setup.model_file(), "trained": trained });
        let mut store = Store::open(&self.setup.out, &settings)?;
        let stop = Stoppable::begin();
        let mut keys = Vec::new();
        for case in &cases {
            for &length in &self.lengths {
                keys.extend(RULES.iter().map(|rule| key(case, rule, length)));
            }
        }
        let mut tally = Tally::begin("scoring", "runs", &store, keys);
        let scored = cases.iter().try_for_each(|case| -> Result {
            for &length in &self.lengths {
                let n = trained * length;
                let tokens = case.tokens[..n].to_vec();
                let n_bytes = model.tokenizer().decode(&tokens, false).len();
                let part = Case { name: case.name.clone(), language: case.language, tokens, n_bytes };
                for rule in &RULES {
                    let key = key(case, rule, length);
                    if store.get(&key).is_some() {
                        continue;
                    }
                    let mut options = SessionOptions { rope: Some(rule.options), ..self.setup.options() };
                    options.window.language = case.language;
                    let bits = bits_per_byte(&model, &options, &part, &stop)?;
                    let row = json!({
                        "file": case.name, "language": case.language.name, "rule": rule.name, "times": length,
                        "tokens": n, "bytes": n_bytes, "bits_per_byte": bits,
                    });
                    store.put(&key, row)?;
                    tally.add();
                }
            }
            Ok(())
        });
        tally.end(scored, &stop)?;
        self.report(&store, &cases)
    }

    fn report(&self, store: &Store, cases: &[Case]) -> Result {
        let mut out = Out::new();
        let mut figures = Vec::new();
        for &length in &self.lengths {
            let column = |rule: &Rule| -> Vec<f64> {
                let value = |case| store.get(&key(case, rule, length))?["bits_per_byte"].as_f64();
                cases.iter().filter_map(value).collect()
            };
            let linear = column(&RULES[0]);
            let mut table = Table::new(&[
                ("rule", Align::Left),
                ("bits/byte", Align::Right),
                ("minus linear, 95% interval", Align::Right),
            ]);
            let mut picture = Vec::new();
            for rule in &RULES {
                let values = column(rule);
                let beside: Vec<f64> = values.iter().zip(&linear).map(|(a, b)| a - b).collect();
                let (low, high) = bootstrap(&beside);
                let against = format!("{:+.4} [{low:+.4}, {high:+.4}]", mean(&beside));
                table.row([rule.name.to_owned(), format!("{:.4}", mean(&values)), against]);
                figures.push(json!({
                    "times": length, "rule": rule.name, "bits_per_byte": mean(&values),
                    "minus_linear": mean(&beside), "interval": [low, high],
                }));
                let interval = Some(bootstrap(&values));
                picture.push(Bar { label: rule.name.to_owned(), value: mean(&values), interval });
            }
            out.line(format_args!("{length} times the trained length, {} files", cases.len()))?;
            table.print(&mut out)?;
            let title =
                format!("{}: bits per byte at {length} times the trained length", self.setup.model_file());
            let picture = bars(&title, Measure::BitsPerByte, "files", &picture);
            store.write(&format!("times-{length}.svg"), &picture)?;
        }
        let summary = json!({ "files": cases.len(), "rows": figures });
        store.write("summary.json", &format!("{summary:#}\n"))?;
        out.flush()
    }
}

/// Texts of exactly `n` tokens: files of one language, one after another.
fn joined(model: &Model, paths: &[PathBuf], n: usize, per_language: usize) -> Result<Vec<Case>> {
    let mut texts: Vec<Case> = Vec::new();
    let mut open: Vec<Case> = Vec::new();
    for file in cases(model, paths, (1, usize::MAX), usize::MAX, "to score")? {
        let language = file.language;
        let whole = texts.iter().filter(|text| text.language.name == language.name).count();
        if whole >= per_language {
            continue;
        }
        let at = open.iter().position(|text| text.language.name == language.name).unwrap_or_else(|| {
            let name = format!("from {}", file.name);
            open.push(Case { name, language, tokens: Vec::new(), n_bytes: 0 });
            open.len() - 1
        });
        open[at].tokens.extend(&file.tokens);
        if open[at].tokens.len() >= n {
            let mut text = open.swap_remove(at);
            text.tokens.truncate(n);
            texts.push(text);
        }
    }
    if texts.is_empty() {
        let most = open.iter().map(|text| text.tokens.len()).max().unwrap_or(0);
        return Err(Failure::usage(format!(
            "the files of no language come to {n} tokens, at most to {most}; give shorter --lengths, or more files"
        )));
    }
    Ok(texts)
}

fn key(case: &Case, rule: &Rule, length: usize) -> String {
    format!("{}/{} {} {length}", case.language.name, case.name, rule.name)
}
