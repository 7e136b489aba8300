//! Flags that several subcommands share.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cchaha::code::{LANGUAGES, Language, MARKDOWN, PLAIN};
use cchaha::{
    DEFAULT_CONTEXT, DEVICES, Device, FULL_BUDGET, MIN_BUDGET, Model, OFFERED, POLICIES, Policy, ROPES,
    RopeOptions, Seen, Session, SessionOptions, Upload, WindowOptions, dynamic_budget,
};
pub(crate) use cchaha_cli::args::{above_zero, at_least, finite, fraction, not_negative, positive, whole};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Command, Parser, ValueHint};

use crate::commands;
use crate::exit::{Failure, Result};
use crate::output::{DIM, Unit, progress_in};

const EXAMPLES: &str = "\
Examples:
  cchaha-run complete -p 'def fibonacci(n):' -n 64
  cchaha-run complete -m model.gguf -p 'def fibonacci(n):' -n 64
  cchaha-run chat -m model.gguf
  cchaha-run fim -m model.gguf --file src/main.rs --at 12:5
  cchaha-run bench -m model.gguf

Every flag --some-name can also be set by the environment variable CCHAHA_ARG_SOME_NAME, for example
CCHAHA_ARG_MODEL for --model. RUST_LOG sets what is logged, NO_COLOR turns colours off.

Exit codes: 0 ok, 1 failure, 2 usage, 3 model missing or corrupt, 4 does not fit in memory,
5 device absent, 130 interrupted.";

/// Run open code models (GGUF files) on this machine: complete, chat, fill in the middle, score, bench.
#[derive(Debug, Parser)]
#[command(name = "cchaha-run", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: commands::Command,

    /// Say more on stderr: what was loaded and chosen, rates at the end
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

/// Which model.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// GGUF file of the model; of a split model any part [default of complete, fim and bench: the small one in the program]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) model: Option<PathBuf>,
}

/// Which model, for commands that look at a file and take its name without a flag too.
#[derive(Debug, Args)]
pub(crate) struct ModelPath {
    /// GGUF file of the model; of a split model any part
    #[arg(value_name = "MODEL", value_hint = ValueHint::FilePath)]
    path: Option<PathBuf>,

    /// The same, as a flag
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    model: Option<PathBuf>,
}

impl From<ModelPath> for ModelArgs {
    fn from(paths: ModelPath) -> ModelArgs {
        ModelArgs { model: paths.path.or(paths.model) }
    }
}

/// What computes, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Running")]
pub(crate) struct BackendArgs {
    /// What runs the model; oracle is the f64 reference, as exact as can be and very slow
    #[arg(long, value_name = "DEVICE", value_parser = device(), default_value = DEVICES[0].0)]
    device: Device,

    /// Layers the graphics device computes, the last ones (-ngl); the processor computes the rest [default: as many as fit]
    #[arg(long, visible_alias = "n-gpu-layers", value_name = "N", value_parser = whole::<usize>)]
    pub(crate) gpu_layers: Option<usize>,

    /// Keep activations in f32 where the fast kernels round them: slower, within f32 rounding of exact arithmetic
    #[arg(long)]
    exact: bool,

    /// Use at most this instruction set, as `cchaha-run kernels` names it [default: the best there is]
    #[arg(long, value_name = "ISA")]
    isa: Option<String>,

    /// Use this kernel wherever it can serve, as `cchaha-run kernels` names it; of the GPU several, with commas between them
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,

    /// Leave weights as the file has them; without this, the processor packs them while the first tokens are generated
    #[arg(long, visible_alias = "nr")]
    no_repack: bool,

    /// Tokens of the prompt per forward pass
    #[arg(short, long, value_name = "N", value_parser = positive, default_value_t = 512)]
    pub(crate) batch_size: usize,

    #[command(flatten)]
    window: WindowArgs,
}

/// What attention sees of the past, and how positions turn.
#[derive(Debug, Args)]
#[command(next_help_heading = "Code window")]
pub(crate) struct WindowArgs {
    /// Cells of the KV cache a token may see; with fold, cells there are [default: all up to 8192 tokens of context, and
    /// beyond that 8192 and more for every outer name the open scope uses, up to 32768; bench and score: all]
    #[arg(long, value_name = "N", value_parser = at_least::<MIN_BUDGET>)]
    kv_budget: Option<usize>,

    #[arg(long, value_name = "POLICY", value_parser = policy(), help = policy_help())]
    kv_policy: Option<&'static Policy>,

    /// What the text is written in, for structure, scope and --syntax [default: by the file's extension or its text]
    #[arg(long, value_name = "NAME", value_parser = language)]
    language: Option<&'static Language>,

    /// Rotary positions [default: the model's own]; any of them lets --ctx exceed the length the model was trained for
    #[arg(long, value_name = "RULE", value_parser = PossibleValuesParser::new(ROPES.map(|(name, _)| name)))]
    rope: Option<String>,
}

impl WindowArgs {
    /// That the flags do not contradict each other.
    fn check(&self) -> Result {
        if self.kv_budget.is_some() && self.kv_policy.is_some_and(|policy| *policy == POLICIES[0]) {
            return Err(Failure::usage(
                "--kv-policy full sees everything; leave --kv-budget out, or choose another policy",
            ));
        }
        Ok(())
    }

    fn rope(&self) -> Option<RopeOptions> {
        let name = self.rope.as_deref()?;
        ROPES.iter().find(|row| row.0 == name).map(|row| RopeOptions::new(row.1))
    }
}

fn policy() -> impl TypedValueParser<Value = &'static Policy> {
    let names = POLICIES[..OFFERED].iter().map(|policy| policy.name);
    PossibleValuesParser::new(names).try_map(|name| Policy::named(&name).ok_or("no such policy"))
}

fn policy_help() -> String {
    let rows = POLICIES[..OFFERED].iter().map(|policy| format!("{}: {}", policy.name, policy.about));
    format!(
        "What the budget is spent on; of no effect where there is none. {} [default: {}]",
        rows.collect::<Vec<_>>().join("; "),
        WindowOptions::default().policy.name
    )
}

/// A language by its name or extension.
pub(crate) fn language(name: &str) -> std::result::Result<&'static Language, String> {
    Language::named(name).ok_or_else(|| {
        let names: Vec<&str> = LANGUAGES.iter().map(|language| language.name).collect();
        format!("known are {}, markdown and plain", names.join(", "))
    })
}

impl BackendArgs {
    /// That the flags do not contradict each other.
    pub(crate) fn check(&self) -> Result {
        self.window.check()
    }

    /// The rule of `--rope`.
    pub(crate) fn rope(&self) -> Option<&str> {
        self.window.rope.as_deref()
    }

    /// Says where a policy was asked for and there is no budget that it could spend.
    pub(crate) fn say_idle_policy(&self, options: &SessionOptions) {
        let policy = self.window.kv_policy.filter(|policy| **policy != POLICIES[0]);
        if let Some(policy) = policy.filter(|_| options.window.budget.is_none()) {
            let name = policy.name;
            anstream::eprintln!(
                "{DIM}--kv-policy {name} has no effect here: without --kv-budget all tokens are seen{DIM:#}"
            );
        }
    }

    pub(crate) fn options(&self) -> SessionOptions {
        SessionOptions {
            device: self.device,
            gpu_layers: self.gpu_layers,
            upload: Some(upload()),
            exact: self.exact,
            isa: self.isa.clone(),
            kernel: self.kernel.clone(),
            repack: !self.no_repack,
            batch: self.batch_size,
            window: WindowOptions {
                policy: self.window.kv_policy.unwrap_or(WindowOptions::default().policy),
                budget: self.window.kv_budget,
                language: self.window.language.unwrap_or(&PLAIN),
            },
            rope: self.window.rope(),
            ..SessionOptions::default()
        }
    }
}

/// Shows how the upload of weights goes on.
fn upload() -> Upload {
    let bar = Mutex::new(None);
    Upload(Arc::new(move |done, total| {
        let mut bar = bar.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = bar.get_or_insert_with(|| progress_in(Unit::Bytes, "uploading"));
        shown.at(done as usize, total as usize);
        if done >= total {
            *bar = None;
        }
    }))
}

/// Where and how one session runs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Running")]
pub(crate) struct DeviceArgs {
    /// Worker threads [default: one per physical core]
    #[arg(short, long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,

    #[arg(short, long, visible_alias = "ctx-size", value_name = "N", value_parser = positive, help = ctx_help())]
    ctx: Option<usize>,

    #[command(flatten)]
    backend: BackendArgs,

    /// Say on stderr which lines the window shows at the end; with a FILE, also draw that there as SVG
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, num_args = 0..=1, default_missing_value = "-", help_heading = "Code window")]
    explain_window: Option<PathBuf>,
}

impl DeviceArgs {
    /// Before anything is done: that the flags do not contradict each other, and that the picture can be written.
    pub(crate) fn check(&self) -> Result {
        self.backend.check()?;
        self.picture().map_or(Ok(()), check_writable)
    }

    /// Where to draw what the window shows.
    fn picture(&self) -> Option<&Path> {
        self.explain_window.as_deref().filter(|path| *path != Path::new("-"))
    }

    /// For `text`, the text of `file`, by whose name its language is known; otherwise it is guessed.
    pub(crate) fn of_file(&mut self, file: Option<&Path>, text: &str) {
        let language = &mut self.backend.window.language;
        let by_name =
            || file.map(|file| Language::of_file(file, text)).filter(|language| language.name != PLAIN.name);
        *language = language.or_else(by_name).or_else(|| Some(Language::guess(text)));
    }

    /// Options for continuing `text`, of `tokens` tokens with its continuation: where the context is not given it holds
    /// them, and where it holds more than [`FULL_BUDGET`] tokens and no budget is given, the window follows the text.
    pub(crate) fn options_for(&self, model: &Model, text: &str, tokens: usize) -> SessionOptions {
        let mut options = self.options();
        let default = model.context().min(DEFAULT_CONTEXT);
        if options.ctx.is_none() && tokens > default && default < model.context() {
            options.ctx = Some(tokens.min(model.context()));
        }
        if options.window.budget.is_none() && options.ctx.is_some_and(|ctx| ctx > FULL_BUDGET) {
            options.window.budget = Some(dynamic_budget(options.window.language, text));
        }
        self.say_idle_policy(&options);
        options
    }

    /// [`BackendArgs::say_idle_policy`].
    pub(crate) fn say_idle_policy(&self, options: &SessionOptions) {
        self.backend.say_idle_policy(options);
    }

    /// For a conversation: prose with code in it, unless a language is given.
    pub(crate) fn of_chat(&mut self) {
        self.backend.window.language.get_or_insert(&MARKDOWN);
    }

    /// Says and draws what the window shows of `source`, where that is asked for.
    pub(crate) fn explain(&self, seen: &Seen, source: &str) -> Result {
        if self.explain_window.is_some() {
            anstream::eprint!("{}", seen.text());
        }
        let Some(path) = self.picture() else { return Ok(()) };
        std::fs::write(path, seen.svg(source)).map_err(|error| cannot_write(path, &error))
    }

    /// The same of all that a session has read and written.
    pub(crate) fn explain_session(&self, session: &Session) -> Result {
        if self.explain_window.is_none() {
            return Ok(());
        }
        let text = session.model().tokenizer().decode(session.tokens(), false);
        self.explain(&session.seen(), &String::from_utf8_lossy(&text))
    }

    pub(crate) fn options(&self) -> SessionOptions {
        let count_chosen = self.explain_window.is_some();
        SessionOptions { threads: self.threads, ctx: self.ctx, count_chosen, ..self.backend.options() }
    }
}

/// That a file can be written, before the work whose result goes there. Leaves no file where there was none.
pub(crate) fn check_writable(path: &Path) -> Result {
    let absent = !path.exists();
    OpenOptions::new().create(true).append(true).open(path).map_err(|error| cannot_write(path, &error))?;
    if absent {
        // Where that fails, there is an empty file until the work is done.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

pub(crate) fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("cannot write {}: {error}", path.display()))
}

fn ctx_help() -> String {
    format!(
        "Most tokens of prompt and answer together [default: the model's own context, at most {DEFAULT_CONTEXT}; complete takes more for a longer prompt]"
    )
}

fn device() -> impl TypedValueParser<Value = Device> {
    PossibleValuesParser::new(DEVICES.map(|(name, _)| name)).try_map(|name| name.parse::<Device>())
}

/// The command with the rules that hold for every flag.
pub(crate) fn command() -> Command {
    cchaha_cli::args::command::<Cli>()
}

/// Reads the command line and the environment. `--help` and `--version` print and end the program here.
pub(crate) fn parse() -> Result<Cli> {
    cchaha_cli::args::parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_consistent() {
        command().debug_assert();
    }
}
