//! How flags are read.
//!
//! Every flag `--some-name` can also be set by the environment variable `CCHAHA_ARG_SOME_NAME`; the command line wins. An
//! empty variable counts as unset, and a switch takes `1`, `true`, `yes`, `on` or their opposites.

use std::str::FromStr;

use cchaha::ErrorKind;
use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, Command, CommandFactory, Parser};

use crate::exit::{Failure, Result};

const ENV_PREFIX: &str = "CCHAHA_ARG_";

/// A whole number of 1 or more.
pub fn positive(text: &str) -> std::result::Result<usize, String> {
    at_least::<1>(text)
}

/// A whole number of `LEAST` or more.
pub fn at_least<const LEAST: usize>(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(n) if n >= LEAST => Ok(n),
        _ => Err(format!("expected a whole number of {LEAST} or more")),
    }
}

/// A whole number of 0 or more.
pub fn whole<T: FromStr>(text: &str) -> std::result::Result<T, String> {
    text.parse().map_err(|_| "expected a whole number of 0 or more".into())
}

/// A number in a range, for [`clap`]'s messages.
fn in_range(text: &str, expected: &str, fits: impl Fn(f32) -> bool) -> std::result::Result<f32, String> {
    match text.parse() {
        Ok(x) if fits(x) => Ok(x),
        _ => Err(format!("expected {expected}")),
    }
}

/// A number of 0 or more.
pub fn not_negative(text: &str) -> std::result::Result<f32, String> {
    in_range(text, "a number of 0 or more", |x| x >= 0.0 && x.is_finite())
}

/// A number above 0.
pub fn above_zero(text: &str) -> std::result::Result<f32, String> {
    in_range(text, "a number above 0", |x| x > 0.0 && x.is_finite())
}

/// A number from 0 to 1.
pub fn fraction(text: &str) -> std::result::Result<f32, String> {
    in_range(text, "a number from 0 to 1", |x| (0.0..=1.0).contains(&x))
}

/// A number that is neither infinite nor NaN.
pub fn finite(text: &str) -> std::result::Result<f32, String> {
    in_range(text, "a number", f32::is_finite)
}

/// The command of a program with the rules that hold for every flag: its environment variable, negative numbers as values (so that
/// the value is what an error is about), switches that read `1` and `yes`, and of a flag given twice the last one.
pub fn command<C: CommandFactory>() -> Command {
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
    rules(C::command())
}

fn env_name(flag: &str) -> String {
    format!("{ENV_PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

/// Reads the command line and the environment. `--help` and `--version` print and end the program here.
pub fn parse<C: Parser>() -> Result<C> {
    // As llama.cpp spells it, which clap reads as -n with the value "gl".
    let args = std::env::args_os().map(|arg| if arg == "-ngl" { "--gpu-layers".into() } else { arg });
    let matches = command::<C>().try_get_matches_from(args).and_then(|matches| C::from_arg_matches(&matches));
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
    fn numbers_out_of_range_are_refused() {
        assert_eq!(positive("12"), Ok(12));
        for text in ["0", "-1", "1.5", "", "99999999999999999999999"] {
            assert!(positive(text).is_err(), "{text}");
        }
        assert_eq!(at_least::<2>("2"), Ok(2));
        assert_eq!(at_least::<2>("1"), Err("expected a whole number of 2 or more".into()));
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
