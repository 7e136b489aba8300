//! `cchaha-run` as its users meet it: results on stdout, one clear sentence and the right exit code for every
//! wrong input.

mod bad_input;
mod chat;
mod embedded;
mod results;
mod terminal;
mod window;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use assert_cmd::Command;
use predicates::prelude::{PredicateBooleanExt, predicate};
use predicates::str::{contains, is_empty};
use serde_json::Value;
use tempfile::TempDir;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// stories260K: a real, tiny model with a context of 512 tokens.
fn stories() -> PathBuf {
    golden("stories260K-f32.gguf")
}

/// The program with an environment that sets none of its variables, and nothing on stdin.
fn command() -> std::process::Command {
    let mut command = std::process::Command::new(cchaha_tests::program("cchaha-run"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CCHAHA_ARG_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn run<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = command();
    command.args(args);
    Command::from_std(command)
}

/// `SUBCOMMAND -m stories260K` and more arguments, split at spaces.
fn stories_run(subcommand: &str, rest: &str) -> Command {
    let mut command = run([subcommand, "-m"]);
    command.arg(stories()).args(rest.split_whitespace());
    command
}

/// The one JSON value a command prints.
fn json(command: &mut Command) -> Value {
    let output = command.assert().success();
    serde_json::from_slice(&output.get_output().stdout).expect("one JSON value on stdout")
}

fn stdout(command: &mut Command) -> String {
    String::from_utf8(command.assert().success().get_output().stdout.clone()).expect("UTF-8")
}

/// Asserts the exit code, an empty stdout and one clear sentence on stderr that holds all `words`.
fn fails(command: &mut Command, code: i32, words: &[&str]) {
    let assert =
        command.assert().code(code).stdout(is_empty()).stderr(predicate::str::starts_with("error: "));
    let stderr = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in: {stderr}");
    }
    for debug in ["Error {", "Err(", "Some(", "kind:", "panicked", "ErrorKind"] {
        assert!(!stderr.contains(debug), "Rust's debug form in: {stderr}");
    }
}

/// A template for a model that has none: the last message is continued.
fn template(dir: &Path) -> PathBuf {
    let path = dir.join("template.jinja");
    let source = "{{ bos_token }}{% for m in messages %}{{ m.role[0] }}: {{ m.content }}\n{% endfor %}";
    fs::write(&path, source).expect("a file");
    path
}
