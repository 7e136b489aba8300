//! `bodies`: how many of the Python function bodies that a model writes are Python.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use cchaha::code::{Scanner, Structure, Syntax};
use cchaha::sample::SampleParams;
use cchaha::text::{Special, Tokenizer};
use cchaha::{GenerateRequest, Session, SessionOptions, generate, heal};
use cchaha_cli::args::{not_negative, positive, whole};
use cchaha_cli::exit::{Failure, Result};
use cchaha_cli::interrupt::Stoppable;
use cchaha_cli::output::{Align, Out, Table};
use clap::{Args, ValueHint};
use serde_json::json;

use super::Setup;
use super::files::{Source, sources};
use crate::sandbox::{Ended, Limits, Sandbox};
use crate::stats::{bootstrap, mean};
use crate::store::Store;
use crate::tally::Tally;

/// Write the bodies of Python functions and count those that parse
#[derive(Debug, Args)]
pub(crate) struct Bodies {
    #[command(flatten)]
    setup: Setup,

    /// Python files the model has not been trained on, or folders of them
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath, required = true, num_args = 1..)]
    files: Vec<PathBuf>,

    /// Functions, spread evenly over those of the files
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 200)]
    count: usize,

    /// Most tokens of a body
    #[arg(short, long, value_name = "N", value_parser = positive, default_value_t = 192)]
    n_predict: usize,

    /// Most tokens before a body, header included
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 512)]
    prefix_budget: usize,

    /// Temperature: 0 always takes the likeliest token; 0.8 is what `cchaha-run complete` takes
    #[arg(long, value_name = "T", value_parser = not_negative, default_value_t = 0.0)]
    temp: f32,

    /// Penalty on copies of earlier text, so that loops end, as `cchaha-run complete --dry-multiplier`; 0 for none
    #[arg(long, value_name = "X", value_parser = not_negative, default_value_t = 0.0)]
    dry_multiplier: f32,

    /// Length in tokens from which a copy is penalized
    #[arg(long, value_name = "N", value_parser = whole::<u32>, default_value_t = SampleParams::default().dry_allowed_length)]
    dry_allowed_length: u32,

    /// Choose only tokens that keep the program's syntax in order, as `cchaha-run complete --syntax`
    #[arg(long)]
    syntax: bool,

    /// The Python that parses
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: String,
}

/// A function: its header is the last lines before `body`.
struct Function<'a> {
    source: &'a Source,
    header: usize,
    body: usize,
}

impl Function<'_> {
    fn key(&self) -> String {
        format!("{} {}", self.source.key(), self.header)
    }

    fn indentation(&self) -> usize {
        indentation(&self.source.text[self.header..])
    }

    /// The part of `text` that belongs to the body: up to the first line of code or comment that is indented no deeper than the header, lines
    /// inside literals and brackets left out. `None` while that line has not come.
    fn body_end(&self, text: &str) -> Option<usize> {
        let mut scanner = Scanner::new(self.source.language);
        scanner.feed(&self.source.text.as_bytes()[self.header..self.body]);
        let outside = scanner.open_brackets();
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let starts_code = scanner.in_code() && scanner.open_brackets() <= outside;
            let deeper = indentation(line) > self.indentation();
            if starts_code && !deeper && !line.trim().is_empty() && line.len() > indentation(line) {
                return Some(at);
            }
            scanner.feed(line.as_bytes());
            at += line.len();
        }
        None
    }
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '\t']).len()
}

/// Functions with bodies of their own lines, headers of classes left out.
fn functions(source: &Source) -> Vec<Function<'_>> {
    let structure = Structure::scan(source.language, source.text.as_bytes());
    let start = |line: u32| structure.lines.get(line as usize).map_or(source.text.len(), |line| line.start);
    let scopes = structure.scopes.iter().filter_map(|scope| {
        let (header, body) = (start(scope.header.start), start(scope.header.end));
        let text = &source.text[header..body];
        let is_function = text.lines().any(|line| {
            let line = line.trim_start();
            line.starts_with("def ") || line.starts_with("async def ")
        });
        let has_body = scope.end.is_some_and(|end| end > scope.header.end + 1);
        (is_function && has_body && text.trim_end().ends_with(':')).then_some(Function {
            source,
            header,
            body,
        })
    });
    scopes.collect()
}

/// The prompt of as many last lines of `text` as `room` tokens hold; of a last line that is longer, its end.
fn last_lines(tokenizer: &Tokenizer, text: &str, room: usize) -> Vec<u32> {
    let encode = |start: usize| tokenizer.encode_prompt(&text[start..], Special::Plain);
    let mut starts = vec![0];
    starts.extend(text.match_indices('\n').map(|(at, _)| at + 1).filter(|&at| at < text.len()));
    // Fewer lines have fewer tokens.
    let fits = starts.partition_point(|&start| encode(start).len() > room);
    let mut prompt = encode(starts[fits.min(starts.len() - 1)]);
    prompt.drain(..prompt.len().saturating_sub(room));
    prompt
}

impl Bodies {
    pub(crate) fn run(self) -> Result {
        let model = self.setup.model()?;
        let tokenizer = model.tokenizer();
        let mut sources = sources(&self.files, (1, usize::MAX), usize::MAX)?;
        sources.retain(|source| source.language.name == "python");
        let all: Vec<Function<'_>> = sources.iter().flat_map(functions).collect();
        if all.is_empty() {
            return Err(Failure::usage("there is no Python function in these files"));
        }
        let count = self.count.min(all.len());
        let chosen: Vec<&Function<'_>> = (0..count).map(|i| &all[i * all.len() / count]).collect();
        let settings = json!({
            "study": "bodies", "model": self.setup.model_file(), "n_predict": self.n_predict,
            "prefix_budget": self.prefix_budget, "temp": self.temp,
            "dry_multiplier": self.dry_multiplier, "dry_allowed_length": self.dry_allowed_length,
            "syntax": self.syntax,
        });
        let mut store = Store::open(&self.setup.out, &settings)?;
        let limits = Limits { wall: Duration::from_secs(10), memory_mib: 1024 };
        // Parsing runs nothing of what the model wrote.
        let sandbox = Sandbox::new(&self.python, true, limits)?;
        let ctx = (self.prefix_budget + self.n_predict + 2).min(model.context());
        let mut options = SessionOptions { ctx: Some(ctx), ..self.setup.options() };
        options.window.language = sources[0].language;
        let mut session = Session::new(&model, &options)?;
        let stop = Stoppable::begin();
        let keys = chosen.iter().map(|function| function.key());
        let mut tally = Tally::begin("writing", "functions", &store, keys);
        let written = chosen.iter().enumerate().try_for_each(|(i, function)| -> Result {
            let key = function.key();
            if store.get(&key).is_some() {
                return Ok(());
            }
            let text = &function.source.text;
            let room = self.prefix_budget.min(ctx - self.n_predict.min(ctx / 2) - 2);
            let mut prompt = last_lines(tokenizer, &text[..function.body], room);
            let before = &text.as_bytes()[..function.body];
            let syntax = Syntax::after(function.source.language, before).filter(|_| self.syntax);
            let healed = heal(tokenizer, &mut prompt);
            session.set_prompt(&prompt, &mut |_| stop.flow())?;
            let request = GenerateRequest { healed, syntax, ..self.request(i as u64) };
            let (body, ended) = self.write(&mut session, &request, function, &stop)?;
            if stop.requested() {
                return Err(Failure::interrupted());
            }
            let header = &text[function.header..function.body];
            let ended_well = sandbox.run(&program(header, &body, function.indentation()))?;
            let row = json!({
                "file": function.source.name, "header": header, "body": body,
                "ended": ended, "parses": ended_well == Ended::Passed,
            });
            store.put(&key, row)?;
            tally.add();
            Ok(())
        });
        tally.end(written, &stop)?;
        report(&store, &chosen)
    }

    fn request(&self, seed: u64) -> GenerateRequest {
        GenerateRequest {
            max_tokens: self.n_predict,
            sample: SampleParams {
                temperature: self.temp,
                seed,
                dry_multiplier: self.dry_multiplier,
                dry_allowed_length: self.dry_allowed_length,
                ..SampleParams::default()
            },
            ..GenerateRequest::default()
        }
    }

    /// A body, and whether it came to an end.
    fn write(
        &self,
        session: &mut Session,
        request: &GenerateRequest,
        function: &Function<'_>,
        stop: &Stoppable,
    ) -> Result<(String, bool)> {
        let mut text = String::new();
        let finish = generate(session, request, &mut |piece| {
            text.push_str(piece.text);
            if function.body_end(&text).is_some() { ControlFlow::Break(()) } else { stop.flow() }
        })?;
        if let Some(end) = function.body_end(&text) {
            text.truncate(end);
            return Ok((text, true));
        }
        // Without room for more, the last line may lack its end.
        let ended = finish.tokens < self.n_predict;
        if !ended {
            text.truncate(text.rfind('\n').map_or(0, |at| at + 1));
        }
        Ok((text, ended))
    }
}

/// A program that succeeds where the function parses and is more than its header.
fn program(header: &str, body: &str, indentation: usize) -> String {
    let lines: Vec<&str> = header.split_inclusive('\n').chain(body.split_inclusive('\n')).collect();
    let source: String =
        lines.iter().map(|line| line.get(indentation..).unwrap_or_else(|| line.trim_start())).collect();
    // A JSON string is a Python string: what JSON escapes, Python reads alike.
    format!("import ast\nassert ast.parse({}).body\n", json!(source))
}

fn report(store: &Store, chosen: &[&Function<'_>]) -> Result {
    let share = |field: &str| -> Vec<f64> {
        let flags = chosen.iter().filter_map(|function| store.get(&function.key())?[field].as_bool());
        flags.map(|flag| 100.0 * f64::from(u8::from(flag))).collect()
    };
    let mut table =
        Table::new(&[("bodies", Align::Left), ("%", Align::Right), ("95% interval", Align::Right)]);
    let mut figures = json!({ "functions": chosen.len() });
    for (field, label) in [("parses", "parse"), ("ended", "come to an end")] {
        let values = share(field);
        let (low, high) = bootstrap(&values);
        table.row([label.to_owned(), format!("{:.1}", mean(&values)), format!("{low:.1} to {high:.1}")]);
        figures[field] = json!({ "percent": mean(&values), "interval": [low, high] });
    }
    store.write("summary.json", &format!("{figures:#}\n"))?;
    let mut out = Out::new();
    table.print(&mut out)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_ends_at_the_first_line_of_code_indented_no_deeper() {
        let language = cchaha::code::Language::named("python").unwrap();
        let end = |indentation: &str, body: &str| {
            let text = format!("{indentation}def f():\n");
            let (header, body_at) = (0, text.len());
            let source = Source { name: "a.py".to_owned(), language, text };
            Function { source: &source, header, body: body_at }.body_end(body)
        };
        assert_eq!(end("", "    return 1\n"), None);
        assert_eq!(end("", "    return 1\n\ndef g"), Some(14));
        assert_eq!(end("    ", "        x = 1\n\n    "), None, "that line may go on");
        assert_eq!(end("    ", "        x = 1\n    y"), Some(14));
        assert_eq!(end("", "    '''a\nb\n'''\nc"), Some(15), "a literal's lines are as they are");
        assert_eq!(end("", "    f(\n1)\nc"), Some(10), "and so are those of a call");
    }

    #[test]
    fn functions_are_found_with_headers_of_several_lines() {
        let python = cchaha::code::Language::named("python").unwrap();
        let text =
            "class A:\n    @wrap\n    def f(self,\n          x):\n        return x\n\ndef g(): return 1\n"
                .to_owned();
        let source = Source { name: "a.py".to_owned(), language: python, text };
        let found = functions(&source);
        let headers: Vec<&str> = found.iter().map(|f| &source.text[f.header..f.body]).collect();
        assert_eq!(headers, ["    @wrap\n    def f(self,\n          x):\n"]);
        assert_eq!(found[0].indentation(), 4);
        let program = program(headers[0], "        return \"\\n\"\n", 4);
        assert_eq!(
            program,
            "import ast\nassert ast.parse(\"@wrap\\ndef f(self,\\n      x):\\n    return \\\"\\\\n\\\"\\n\").body\n"
        );
    }
}
