//! Flags that several subcommands share, and how all flags are read.
//!
//! Every flag `--some-name` can also be set by the environment variable `CCHAHA_ARG_SOME_NAME`; the command line wins. An
//! empty variable counts as unset, and a switch takes `1`, `true`, `yes`, `on` or their opposites.

use std::path::PathBuf;
use std::str::FromStr;

use cchaha::{DEFAULT_CONTEXT, DEVICES, Device, ErrorKind, SessionOptions};
use clap::builder::{BoolishValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, Args, Command, CommandFactory, FromArgMatches, Parser, ValueHint};

use crate::commands;
use crate::exit::{Failure, Result};

const ENV_PREFIX: &str = "CCHAHA_ARG_";

const EXAMPLES: &str = "\
Examples:
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
    /// GGUF file of the model; of a split model any part
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

    /// Keep activations in f32 where the fast kernels round them: slower, within f32 rounding of exact arithmetic
    #[arg(long)]
    exact: bool,

    /// Use at most this instruction set, as `cchaha-run kernels` names it [default: the best there is]
    #[arg(long, value_name = "ISA")]
    isa: Option<String>,

    /// Use this kernel wherever it can serve, as `cchaha-run kernels` names it
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,

    /// Tokens of the prompt per forward pass
    #[arg(short, long, value_name = "N", value_parser = positive, default_value_t = 512)]
    pub(crate) batch_size: usize,
}

impl BackendArgs {
    pub(crate) fn options(&self) -> SessionOptions {
        SessionOptions {
            device: self.device,
            exact: self.exact,
            isa: self.isa.clone(),
            kernel: self.kernel.clone(),
            batch: self.batch_size,
            ..SessionOptions::default()
        }
    }
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
}

impl DeviceArgs {
    pub(crate) fn options(&self) -> SessionOptions {
        SessionOptions { threads: self.threads, ctx: self.ctx, ..self.backend.options() }
    }
}

fn ctx_help() -> String {
    format!(
        "Most tokens of prompt and answer together [default: the model's own context, at most {DEFAULT_CONTEXT}]"
    )
}

fn device() -> impl TypedValueParser<Value = Device> {
    PossibleValuesParser::new(DEVICES.map(|(name, _)| name)).try_map(|name| name.parse::<Device>())
}

/// A whole number of 1 or more.
pub(crate) fn positive(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("expected a whole number of 1 or more".into()),
    }
}

/// A whole number of 0 or more.
pub(crate) fn whole<T: FromStr>(text: &str) -> std::result::Result<T, String> {
    text.parse().map_err(|_| "expected a whole number of 0 or more".into())
}

/// A number in a range, for [`clap`]'s messages.
fn in_range(text: &str, expected: &str, fits: impl Fn(f32) -> bool) -> std::result::Result<f32, String> {
    match text.parse() {
        Ok(x) if fits(x) => Ok(x),
        _ => Err(format!("expected {expected}")),
    }
}

pub(crate) fn not_negative(text: &str) -> std::result::Result<f32, String> {
    in_range(text, "a number of 0 or more", |x| x >= 0.0 && x.is_finite())
}

pub(crate) fn above_zero(text: &str) -> std::result::Result<f32, String> {
    in_range(text, "a number above 0", |x| x > 0.0 && x.is_finite())
}

pub(crate) fn fraction(text: &str) -> std::result::Result<f32, String> {
    in_range(text, "a number from 0 to 1", |x| (0.0..=1.0).contains(&x))
}

pub(crate) fn finite(text: &str) -> std::result::Result<f32, String> {
    in_range(text, "a number", f32::is_finite)
}

/// The command with the rules that hold for every flag: its environment variable, negative numbers as values (so that
/// the value is what an error is about), switches that read `1` and `yes`, and of a flag given twice the last one.
pub(crate) fn command() -> Command {
    fn rules(command: Command) -> Command {
        command.args_override_self(true).mut_args(flag).mut_subcommands(rules)
    }
    fn flag(arg: Arg) -> Arg {
        let switch = matches!(arg.get_action(), ArgAction::SetTrue);
        let arg = if switch { arg.value_parser(BoolishValueParser::new()) } else { arg };
        let arg = if arg.get_action().takes_values() { arg.allow_negative_numbers(true) } else { arg };
        let Some(name) = arg.get_long().map(env_name) else { return arg };
        match std::env::var_os(&name) {
            Some(value) if !value.is_empty() => arg.env(name).hide_env(true),
            _ => arg,
        }
    }
    rules(Cli::command())
}

fn env_name(flag: &str) -> String {
    format!("{ENV_PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

/// Reads the command line and the environment. `--help` and `--version` print and end the program here.
pub(crate) fn parse() -> Result<Cli> {
    let matches = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    matches.map_err(|error| {
        // Where even this cannot be printed there is nobody to tell.
        let _ = error.print();
        if !error.use_stderr() {
            return Failure::silent(0);
        }
        let failure = Failure::silent(ErrorKind::Usage.exit_code());
        match environment().join(", ") {
            none if none.is_empty() => failure,
            names => failure.hint(format!("Set in the environment: {names}")),
        }
    })
}

/// Which of our variables are set: a wrong value there is easily forgotten.
fn environment() -> Vec<String> {
    let names = std::env::vars_os().filter(|(_, value)| !value.is_empty());
    let names = names.filter_map(|(name, _)| name.into_string().ok());
    names.filter(|name| name.starts_with(ENV_PREFIX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert_eq!(positive("12"), Ok(12));
        for text in ["0", "-1", "1.5", "", "99999999999999999999999"] {
            assert!(positive(text).is_err(), "{text}");
        }
        assert_eq!(whole("0"), Ok(0u64));
        assert!(whole::<usize>("-1").is_err());
        assert_eq!(fraction("0.5"), Ok(0.5));
        for text in ["-0.1", "1.1", "nan", "x"] {
            assert!(fraction(text).is_err(), "{text}");
        }
        for text in ["-1", "inf", "nan"] {
            assert!(not_negative(text).is_err(), "{text}");
        }
    }
}
