//! `humaneval` and `mbpp`: functions the model writes, run with their tests.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cchaha::chat::{ChatTemplate, Message};
use cchaha::sample::SampleParams;
use cchaha::text::Special;
use cchaha::{GenerateRequest, Job, Model, SessionOptions, generate_all};
use cchaha_cli::args::{above_zero, positive};
use cchaha_cli::exit::{Failure, Result};
use cchaha_cli::interrupt::Stoppable;
use cchaha_cli::output::{Align, Out, Table};
use clap::{Args, ValueEnum, ValueHint};
use serde_json::{Value, json};

use super::Setup;
use crate::sandbox::{Ended, Limits, Sandbox};
use crate::server::Server;
use crate::stats::{bootstrap, mean, pass_at_k};
use crate::store::Store;
use crate::tally::Tally;

/// How the model is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Style {
    /// By its chat template, with the answer begun
    #[default]
    Chat,
    /// By the beginning of the program alone
    Completion,
}

/// See [`super::Command`].
#[derive(Debug, Args)]
pub(crate) struct Programs {
    #[command(flatten)]
    setup: Setup,

    /// The tasks: a .jsonl file, plain or gzipped
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    data: PathBuf,

    /// How the model is asked
    #[arg(long, value_enum, default_value_t)]
    style: Style,

    /// Only the first N tasks
    #[arg(long, value_name = "N", value_parser = positive)]
    limit: Option<usize>,

    /// Programs per task; more than one are sampled at --temp
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 1)]
    samples: usize,

    /// Temperature of several samples
    #[arg(long, value_name = "T", value_parser = above_zero, default_value_t = 0.8)]
    temp: f32,

    /// Most tokens of an answer
    #[arg(short, long, value_name = "N", value_parser = positive, default_value_t = 768)]
    n_predict: usize,

    /// Answers written at once; none depends on the others
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 8)]
    parallel: usize,

    /// Ask the OpenAI-compatible server here instead, such as llama.cpp's at http://localhost:8080/v1; it must run the same model
    #[arg(long, value_name = "URL")]
    server: Option<String>,

    /// Judge the answers in the results.jsonl of an earlier run, and ask no model
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "server")]
    answers: Option<PathBuf>,

    /// Run answers as they are, with the examples and asserts that models add
    #[arg(long)]
    raw: bool,

    /// Seconds a program may run
    #[arg(long, value_name = "S", value_parser = positive, default_value_t = 10)]
    timeout: usize,

    /// The Python that runs the programs
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: String,

    /// Run programs even where they cannot be cut off from the network
    #[arg(long)]
    allow_network: bool,
}

/// One task.
#[derive(Debug)]
struct Task {
    id: String,
    /// What a chat is asked to solve, and what a completion begins with.
    prompt: String,
    /// The function that is tested, where that is known.
    entry: Option<String>,
    /// What is run after the program.
    test: String,
}

/// A set of tasks.
#[derive(Debug)]
pub(crate) struct Benchmark {
    name: &'static str,
    task: fn(&Value) -> Option<Task>,
}

pub(crate) static HUMANEVAL: Benchmark = Benchmark {
    name: "humaneval",
    task: |row| {
        let text = |key: &str| Some(row[key].as_str()?.to_owned());
        let entry = text("entry_point")?;
        let test = format!("{}\ncheck({entry})\n", text("test")?);
        Some(Task { id: text("task_id")?, prompt: text("prompt")?, entry: Some(entry), test })
    },
};

pub(crate) static MBPP: Benchmark = Benchmark {
    name: "mbpp",
    task: |row| {
        let text = |key: &str| row[key].as_str();
        let tests: Vec<&str> = row["test_list"].as_array()?.iter().filter_map(Value::as_str).collect();
        let task = text("text").or(text("prompt"))?;
        // The first test shows the name and the form of the arguments, as the sanitized set of the authors does.
        let prompt = format!("\"\"\"\n{task}\n{}\n\"\"\"\n", tests.first()?);
        let test = format!("{}\n{}\n", text("test_setup_code").unwrap_or(""), tests.join("\n"));
        let called = tests.first().and_then(|test| test.strip_prefix("assert ")?.split_once('('));
        let entry = called.map(|(name, _)| name.trim().to_owned());
        Some(Task { id: row["task_id"].to_string(), prompt, entry, test })
    },
};

/// What EvalPlus (arXiv 2305.01210) ends answers at, whatever the style.
const STOPS: [&str; 3] = ["\nif __name__", "\ndef main(", "\nprint("];
/// And completions.
const COMPLETION_STOPS: [&str; 6] = ["\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ", "\n\"\"\""];
/// And chats, where a code block ends.
const CHAT_STOP: &str = "\n```";

/// Takes answers apart and runs them.
const JUDGE: &str = include_str!("../judge.py");

/// EvalPlus's instruction and the words it begins the answer with.
const INSTRUCTION: &str = "Please provide a self-contained Python script that solves the following problem in a markdown code block:";
const RESPONSE: &str = "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:";

impl Programs {
    pub(crate) fn run(self, benchmark: &Benchmark) -> Result {
        let mut tasks = read_tasks(&self.data, benchmark)?;
        tasks.truncate(self.limit.unwrap_or(usize::MAX));
        let mut settings = json!({
            "benchmark": benchmark.name,
            "model": self.setup.model_file(),
            "style": if self.style == Style::Chat { "chat" } else { "completion" },
            "samples": self.samples,
            "temp": if self.samples > 1 { self.temp } else { 0.0 },
            "n_predict": self.n_predict,
            "timeout_s": self.timeout,
            "raw": self.raw,
        });
        if let Some(server) = &self.server {
            settings["server"] = json!(server);
        }
        let mut store = Store::open(&self.setup.out, &settings)?;
        let limits = Limits { wall: Duration::from_secs(self.timeout as u64), memory_mib: 4096 };
        let sandbox = Sandbox::new(&self.python, self.allow_network, limits)?;
        let model = self.setup.model()?;
        let template = template(&model)?;
        let stop = Stoppable::begin();
        let all = tasks.iter().flat_map(|task| (0..self.samples).map(move |sample| (task, sample)));
        let open: Vec<(&Task, usize)> =
            all.filter(|(task, sample)| store.get(&key(task, *sample)).is_none()).collect();
        let jobs = open.iter().map(|&(task, sample)| self.job(&model, &template, task, sample));
        let jobs = jobs.collect::<Result<Vec<Job>>>()?;
        let longest = jobs.iter().map(|job| job.prompt.len()).max().unwrap_or(0);
        let ctx = (longest + self.n_predict).min(model.context());
        let options = SessionOptions { ctx: Some(ctx), response: None, ..self.setup.options() };
        let keys = tasks.iter().flat_map(|task| (0..self.samples).map(move |sample| key(task, sample)));
        let mut tally = Tally::begin(benchmark.name, "answers", &store, keys);
        let mut on_answer = |job: usize, answer: &str, tokens: usize| -> Result {
            let (task, sample) = open[job];
            let ended = sandbox.run(&self.program(task, answer))?;
            let result = match &ended {
                Ended::Passed => "passed".to_owned(),
                Ended::Failed(message) => message.clone(),
                Ended::TimedOut => "timed out".to_owned(),
            };
            let row = json!({
                "task": task.id, "sample": sample, "passed": ended == Ended::Passed, "result": result,
                "tokens": tokens, "answer": answer,
            });
            store.put(&key(task, sample), row)?;
            tally.add();
            Ok(())
        };
        let mut ask = || -> Result {
            if let Some(path) = &self.answers {
                let given = self.given(path)?;
                for (job, &(task, sample)) in open.iter().enumerate() {
                    let (answer, tokens) = given.get(&key(task, sample)).ok_or_else(|| {
                        Failure::usage(format!("{} has no answer to {}", path.display(), key(task, sample)))
                    })?;
                    on_answer(job, answer, *tokens)?;
                    if stop.flow().is_break() {
                        return Err(Failure::interrupted());
                    }
                }
                return Ok(());
            }
            if let Some(url) = &self.server {
                return Server::new(url)
                    .answer_all(&jobs, self.parallel, &mut on_answer, &mut || stop.flow());
            }
            let mut failed = None;
            generate_all(
                &model,
                &options,
                &jobs,
                self.parallel,
                &mut |job, answer, finish| {
                    failed = on_answer(job, &answer, finish.tokens).err();
                    if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                },
                &mut || stop.flow(),
            )?;
            failed.map_or(Ok(()), Err)
        };
        let asked = ask();
        tally.end(asked, &stop)?;
        self.report(benchmark, &tasks, &store)
    }

    /// What the model is asked: its answer goes on with what is put in its mouth.
    fn job(&self, model: &Model, template: &ChatTemplate, task: &Task, sample: usize) -> Result<Job> {
        let tokenizer = model.tokenizer();
        let prompt = match self.style {
            Style::Completion => tokenizer.encode_prompt(task.prompt.trim_end(), Special::Plain),
            Style::Chat => {
                let question = format!("{INSTRUCTION}\n```\n{}\n```\n", task.prompt.trim());
                let text = template
                    .render(&[Message::new("user", question)], true, &Value::Null)
                    .map_err(|error| Failure::other(error.to_string()))?;
                let begun = format!("{text}{RESPONSE}\n```python\n");
                tokenizer.encode(&begun, Special::Parse)
            }
        };
        let mut stops: Vec<&str> = STOPS.to_vec();
        match self.style {
            Style::Completion => stops.extend(COMPLETION_STOPS),
            Style::Chat => stops.push(CHAT_STOP),
        }
        let sample = match self.samples {
            1 => SampleParams::greedy(),
            _ => SampleParams { temperature: self.temp, seed: sample as u64 + 1, ..SampleParams::default() },
        };
        let request = GenerateRequest {
            max_tokens: self.n_predict,
            sample,
            stop: stops.into_iter().map(str::to_owned).collect(),
            ..GenerateRequest::default()
        };
        Ok(Job { prompt, request })
    }

    /// What is run: a chat's answer is a whole program, a completion goes on with its prompt.
    fn program(&self, task: &Task, answer: &str) -> String {
        let answer = match self.style {
            Style::Chat => answer.to_owned(),
            Style::Completion => format!("{}{answer}", task.prompt.trim_end()),
        };
        if self.raw {
            return format!("{answer}\n\n{}", task.test);
        }
        // A JSON string is one of Python's as well.
        let entry = task.entry.as_ref().map_or("None".to_owned(), |entry| json!(entry).to_string());
        format!("{JUDGE}\n\njudge({}, {entry}, {})\n", json!(answer), json!(task.test))
    }

    /// The answers of an earlier run.
    fn given(&self, path: &Path) -> Result<HashMap<String, (String, usize)>> {
        let problem =
            |problem: &dyn std::fmt::Display| Failure::usage(format!("{}: {problem}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| problem(&error))?;
        let mut given = HashMap::new();
        for line in text.lines() {
            let row: Value = serde_json::from_str(line).map_err(|error| problem(&error))?;
            let answer = row["answer"].as_str().ok_or_else(|| problem(&"a line has no answer"))?;
            let task = row["task"].as_str().ok_or_else(|| problem(&"a line names no task"))?;
            let tokens = row["tokens"].as_u64().unwrap_or(0) as usize;
            given.insert(format!("{task}#{}", row["sample"]), (answer.to_owned(), tokens));
        }
        Ok(given)
    }

    fn report(&self, benchmark: &Benchmark, tasks: &[Task], store: &Store) -> Result {
        let passed = |task: &Task| {
            let rows = (0..self.samples).filter_map(|sample| store.get(&key(task, sample)));
            rows.filter(|row| row["passed"] == true).count()
        };
        let passed: Vec<usize> = tasks.iter().map(passed).collect();
        let mut table =
            Table::new(&[("", Align::Left), ("pass", Align::Right), ("95% interval", Align::Right)]);
        let mut figures = json!({ "tasks": tasks.len(), "samples": self.samples });
        for k in [1, 5, 10, 100].into_iter().filter(|&k| k <= self.samples) {
            let each: Vec<f64> = passed.iter().map(|&n| 100.0 * pass_at_k(self.samples, n, k)).collect();
            let (low, high) = bootstrap(&each);
            let row = [
                format!("{} pass@{k}", benchmark.name),
                format!("{:.1}", mean(&each)),
                format!("{low:.1} to {high:.1}"),
            ];
            table.row(row);
            figures[format!("pass@{k}")] = json!({ "percent": mean(&each), "interval": [low, high] });
        }
        store.write("summary.json", &format!("{figures:#}\n"))?;
        let mut out = Out::new();
        table.print(&mut out)?;
        out.flush()
    }
}

fn key(task: &Task, sample: usize) -> String {
    format!("{}#{sample}", task.id)
}

fn read_tasks(path: &Path, benchmark: &Benchmark) -> Result<Vec<Task>> {
    let name = path.display();
    let read = || {
        let mut bytes = Vec::new();
        let mut file = File::open(path)?;
        file.read_to_end(&mut bytes)?;
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut text)?;
            bytes = text;
        }
        String::from_utf8(bytes).map_err(std::io::Error::other)
    };
    let text = read().map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?;
    let mut tasks = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let row: Option<Value> = serde_json::from_str(line).ok();
        let task = row.and_then(|row| (benchmark.task)(&row));
        tasks.push(task.ok_or_else(|| {
            Failure::usage(format!("line {} of {name} is no task of {}", i + 1, benchmark.name))
        })?);
    }
    if tasks.is_empty() {
        return Err(Failure::usage(format!("{name} has no tasks of {}", benchmark.name)));
    }
    Ok(tasks)
}

fn template(model: &Model) -> Result<ChatTemplate> {
    let tokenizer = model.tokenizer();
    let text = |id: Option<u32>| {
        id.map_or(String::new(), |id| String::from_utf8_lossy(tokenizer.piece(id, true)).into_owned())
    };
    ChatTemplate::of_model(model.chat_template(None), &text(tokenizer.bos()), &text(tokenizer.eos()))
        .map_err(|error| Failure::new(cchaha::ErrorKind::Model, error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Whether Python gets through it.
    fn passes(answer: &str, entry: &str) -> bool {
        passes_test(answer, entry, &format!("def check(add):\n    assert add(2) == 5\ncheck({entry})\n"))
    }

    fn passes_test(answer: &str, entry: &str, test: &str) -> bool {
        let program = format!("{JUDGE}\n\njudge({}, {}, {})\n", json!(answer), json!(entry), json!(test));
        let mut python = Command::new("python3");
        python.args(["-I", "-c", &program]).stderr(Stdio::null());
        python.status().expect("python3 runs").success()
    }

    #[test]
    fn what_models_add_to_a_function_does_not_count() {
        let whole = "K = 3\nimport math\ndef helper(x):\n    return x + K\ndef add(x):\n    return helper(math.floor(x))\n";
        assert!(passes(whole, "add"));
        assert!(passes(&format!("{whole}assert add(1) == 99\nprint(1 / 0)\nmain()\n"), "add"));
        assert!(passes(&format!("Here it is:\n{whole}\nassert add(1) == [1,\n"), "add"));
        // One without a definition keeps all of them.
        assert!(passes("class Adder:\n    def add(self, x):\n        return x + 3\n", "Adder().add"));
    }

    #[test]
    fn what_a_test_makes_for_the_function_is_there() {
        let answer = "class Node:\n    x = 2\ndef add(node):\n    return node.x + 3\nroot = Node(1 / 0)\n";
        assert!(passes_test(answer, "add", "root = Node()\nassert add(root) == 5\n"));
    }

    #[test]
    fn a_wrong_function_fails() {
        for answer in [
            "def add(x):\n    return x\n",
            "def sub(x):\n    return x\n",
            "def add(x:\n",
            "",
            "import nothing_there",
        ] {
            assert!(!passes(answer, "add"), "{answer}");
        }
    }
}
