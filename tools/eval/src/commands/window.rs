//! `window-study`: bits per byte of long files when attention sees only a budget of cells.

use std::ops::ControlFlow;
use std::path::PathBuf;

use cchaha::code::Language;
use cchaha::text::Special;
use cchaha::{Model, POLICIES, Policy, ScoreRequest, SessionOptions, WindowOptions, score};
use cchaha_cli::args::{at_least, positive};
use cchaha_cli::exit::{Failure, Result};
use cchaha_cli::interrupt::Stoppable;
use cchaha_cli::output::{Align, Out, Table};
use clap::{Args, ValueHint};
use serde_json::json;

use super::Setup;
use super::files::{Source, sources};
use crate::chart::{Bar, Measure, bars};
use crate::stats::{bootstrap, mean};
use crate::store::Store;
use crate::tally::Tally;

/// Bits per byte of long files at equal KV budgets, policy by policy
#[derive(Debug, Args)]
pub(crate) struct WindowStudy {
    #[command(flatten)]
    setup: Setup,

    /// Source files, or folders of them
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath, required = true, num_args = 1..)]
    files: Vec<PathBuf>,

    /// Cells a query may see, comma-separated
    #[arg(long, value_name = "N", value_parser = positive, value_delimiter = ',', default_value = "512")]
    budgets: Vec<usize>,

    /// Policies to compare, comma-separated; full, sinks and pages are always among them
    #[arg(long, value_name = "NAME", value_parser = policy, value_delimiter = ',', default_value = "structure,structure-open,structure-headers,fold,random-pins")]
    policies: Vec<&'static Policy>,

    /// Leave out files of fewer tokens
    #[arg(long, value_name = "N", value_parser = at_least::<2>, default_value_t = 4096)]
    min_tokens: usize,

    /// Score the first N tokens of a file
    #[arg(long, value_name = "N", value_parser = at_least::<2>, default_value_t = 8192)]
    max_tokens: usize,

    /// Most files of a language
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 10)]
    per_language: usize,
}

fn policy(name: &str) -> std::result::Result<&'static Policy, String> {
    Policy::named(name).ok_or_else(|| {
        let names: Vec<&str> = POLICIES.iter().map(|policy| policy.name).collect();
        format!("known are {}", names.join(", "))
    })
}

/// A file to score.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) language: &'static Language,
    pub(crate) tokens: Vec<u32>,
    pub(crate) n_bytes: usize,
}

/// The source files of known languages below `paths`, cut to `max` tokens; those shorter than `min` are left out. Where
/// that leaves none, `what` says what they are for and what helps.
pub(crate) fn cases(
    model: &Model,
    paths: &[PathBuf],
    (min, max): (usize, usize),
    per_language: usize,
    what: &str,
) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    for source in sources(paths, (1, usize::MAX), usize::MAX)? {
        let Source { name, language, text } = source;
        if cases.iter().filter(|case| case.language.name == language.name).count() >= per_language {
            continue;
        }
        let tokenizer = model.tokenizer();
        let mut tokens: Vec<u32> = tokenizer.bos().filter(|_| tokenizer.add_bos()).into_iter().collect();
        tokens.extend(tokenizer.encode(&text, Special::Plain));
        if tokens.len() < min {
            continue;
        }
        tokens.truncate(max);
        let n_bytes = tokenizer.decode(&tokens, false).len();
        cases.push(Case { name, language, tokens, n_bytes });
    }
    if cases.is_empty() {
        return Err(Failure::usage(format!("there is no source file of {min} tokens or more {what}")));
    }
    Ok(cases)
}

/// `-log2 p` of all tokens of a case over its bytes.
pub(crate) fn bits_per_byte(
    model: &std::sync::Arc<Model>,
    options: &SessionOptions,
    case: &Case,
    stop: &Stoppable,
) -> Result<f64> {
    let options = SessionOptions { ctx: Some(case.tokens.len()), ..options.clone() };
    let mut go_on = |_| -> ControlFlow<()> { stop.flow() };
    let scores = score(model, &options, &case.tokens, &ScoreRequest::default(), &mut go_on)?;
    let bits: f64 = scores.logprobs.iter().flatten().map(|logprob| -logprob / std::f64::consts::LN_2).sum();
    Ok(bits / case.n_bytes as f64)
}

impl WindowStudy {
    pub(crate) fn run(self) -> Result {
        let model = self.setup.model()?;
        let limits = (self.min_tokens, self.max_tokens);
        let what = "to score; give longer files, or a lower --min-tokens";
        let cases = cases(&model, &self.files, limits, self.per_language, what)?;
        let settings = json!({
            "study": "window", "model": self.setup.model_file(), "max_tokens": self.max_tokens,
        });
        let mut store = Store::open(&self.setup.out, &settings)?;
        let always = ["sinks", "pages"].into_iter().filter_map(Policy::named);
        let mut policies: Vec<&'static Policy> = always.collect();
        policies.extend(self.policies.iter().filter(|p| !["full", "sinks", "pages"].contains(&p.name)));
        let mut runs = vec![(Policy::named("full").unwrap_or(policies[0]), None)];
        for &budget in &self.budgets {
            runs.extend(policies.iter().map(|&policy| (policy, Some(budget))));
        }
        let stop = Stoppable::begin();
        let mut keys = Vec::new();
        for case in &cases {
            keys.extend(runs.iter().map(|&(policy, budget)| key(case, policy, budget)));
        }
        let mut tally = Tally::begin("scoring", "runs", &store, keys);
        let scored = cases.iter().try_for_each(|case| -> Result {
            for &(policy, budget) in &runs {
                let key = key(case, policy, budget);
                if store.get(&key).is_some() {
                    continue;
                }
                let window = WindowOptions { policy, budget, language: case.language };
                let options = SessionOptions { window, ..self.setup.options() };
                let started = std::time::Instant::now();
                let bits = bits_per_byte(&model, &options, case, &stop)?;
                let row = json!({
                    "file": case.name, "language": case.language.name, "policy": policy.name, "budget": budget,
                    "tokens": case.tokens.len(), "bytes": case.n_bytes, "bits_per_byte": bits,
                    "seconds": started.elapsed().as_secs_f64(),
                });
                store.put(&key, row)?;
                tally.add();
            }
            Ok(())
        });
        tally.end(scored, &stop)?;
        self.report(&store, &cases, &policies)
    }

    fn report(&self, store: &Store, cases: &[Case], policies: &[&'static Policy]) -> Result {
        let column = |policy: &Policy, budget: Option<usize>| -> Vec<f64> {
            let value =
                |case| store.get(&key(case, policy, budget)).and_then(|row| row["bits_per_byte"].as_f64());
            cases.iter().filter_map(value).collect()
        };
        let full = column(&POLICIES[0], None);
        let mut out = Out::new();
        let mut figures = Vec::new();
        for &budget in &self.budgets {
            let of =
                |name: &str| Policy::named(name).map_or(Vec::new(), |policy| column(policy, Some(budget)));
            let (sinks, pages) = (of("sinks"), of("pages"));
            let mut table = Table::new(&[
                ("policy", Align::Left),
                ("bits/byte", Align::Right),
                ("recovered", Align::Right),
                ("minus pages, 95% interval", Align::Right),
            ]);
            let lost = mean(&sinks) - mean(&full);
            let mut row = |name: &str, values: &[f64]| {
                // Where a budget holds the whole files, nothing is lost.
                let recovered = Some((mean(&sinks) - mean(values)) / lost).filter(|x| x.is_finite());
                let beside: Vec<f64> = values.iter().zip(&pages).map(|(a, b)| a - b).collect();
                let (low, high) = bootstrap(&beside);
                let against = format!("{:+.4} [{low:+.4}, {high:+.4}]", mean(&beside));
                table.row([
                    name.to_owned(),
                    format!("{:.4}", mean(values)),
                    recovered.map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", 100.0 * share)),
                    if name == "pages" { String::new() } else { against },
                ]);
                figures.push(json!({
                    "budget": budget, "policy": name, "bits_per_byte": mean(values), "recovered": recovered,
                    "minus_pages": mean(&beside), "interval": [low, high],
                }));
                Bar { label: name.to_owned(), value: mean(values), interval: Some(bootstrap(values)) }
            };
            let mut picture = vec![row("full", &full)];
            picture.extend(policies.iter().map(|policy| row(policy.name, &column(policy, Some(budget)))));
            out.line(format_args!("budget {budget}, {} files", cases.len()))?;
            table.print(&mut out)?;
            let title = format!("{}: bits per byte at a budget of {budget} cells", self.setup.model_file());
            let picture = bars(&title, Measure::BitsPerByte, "files", &picture);
            store.write(&format!("budget-{budget}.svg"), &picture)?;
        }
        let summary = json!({ "files": cases.len(), "rows": figures });
        store.write("summary.json", &format!("{summary:#}\n"))?;
        out.flush()
    }
}

fn key(case: &Case, policy: &Policy, budget: Option<usize>) -> String {
    format!("{}/{} {} {}", case.language.name, case.name, policy.name, budget.unwrap_or(0))
}
