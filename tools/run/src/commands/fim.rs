//! `fim`: fill in the middle.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cchaha::code::Language;
use cchaha::fim::{self, Join, Repository};
use cchaha::text::Special;
use cchaha::{DEFAULT_CONTEXT, ErrorKind, GenerateRequest};
use clap::{Args, ValueHint};

use crate::answer::Answer;
use crate::args::{DeviceArgs, ModelArgs, positive};
use crate::exit::{Failure, Result};
use crate::input;
use crate::output::{DIM, Out};
use crate::sampling::SamplingArgs;

const EXAMPLES: &str = "\
Examples:
  cchaha-run fim -m model.gguf --file src/main.rs --at 12:5
  cchaha-run fim -m model.gguf --prefix-file before.txt --suffix-file after.txt -n 64

  cchaha-run fim -m model.gguf --file src/main.rs --at 12:5 --context src/lib.rs src/args.rs

Lines and columns count from 1; a column counts characters, and the hole is in front of it. Only the middle is printed.
The answer ends where it meets the text after the hole: before it repeats that, closes a bracket that closes there, or leaves
the block. Of files given as context the model sees signatures of the names around the hole first, and bodies as room allows.";

/// Fill in the middle: write what belongs between two texts
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Fim {
    #[command(flatten)]
    model: ModelArgs,

    /// A file that holds the text before the hole
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "suffix_file", conflicts_with = "file")]
    prefix_file: Option<PathBuf>,

    /// A file that holds the text after the hole
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "prefix_file", conflicts_with = "file")]
    suffix_file: Option<PathBuf>,

    /// A file with the hole in it
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "at")]
    file: Option<PathBuf>,

    /// Where the hole is in --file
    #[arg(long, value_name = "LINE:COL", requires = "file")]
    at: Option<Place>,

    /// Other files of the repository that the model should know of; --file itself is left out
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, num_args = 1..)]
    context: Vec<PathBuf>,

    /// Most tokens of the text before the hole [default: what the others leave of the context]
    #[arg(long, value_name = "N", value_parser = positive)]
    prefix_budget: Option<usize>,

    /// Most tokens of the text after the hole [default: a quarter of the context, more where the text before it is short]
    #[arg(long, value_name = "N", value_parser = positive)]
    suffix_budget: Option<usize>,

    /// Go on where the answer meets the text after the hole, until the model ends it
    #[arg(long)]
    no_join: bool,

    /// End the answer with its first line
    #[arg(long, conflicts_with = "no_join")]
    single_line: bool,

    /// Most tokens to write
    #[arg(short, long, visible_alias = "predict", value_name = "N", value_parser = positive, default_value_t = 128)]
    n_predict: usize,

    /// Print one JSON object at the end, the same as `complete` prints
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    sampling: SamplingArgs,

    #[command(flatten)]
    device: DeviceArgs,
}

impl Fim {
    pub(crate) fn run(mut self) -> Result {
        self.device.check()?;
        let (prefix, suffix) = self.around()?;
        let model = Arc::new(self.model.open_or_embedded()?);
        self.device.of_file(self.file.as_deref(), &prefix);
        let options = self.device.options();
        let language = options.window.language;
        let room = options.ctx.unwrap_or(model.context().min(DEFAULT_CONTEXT));
        // A few tokens are left for marks, names and paths.
        let room = room.saturating_sub(self.n_predict + 32).max(64);
        let tokenizer = model.tokenizer();
        let count = |text: &str| tokenizer.encode(text, Special::Plain).len();
        let files = self.context_files(&prefix, &suffix, room / 4, &count)?;
        let taken = files.iter().map(|(path, text)| count(path) + count(text)).sum::<usize>();
        // What a short text before the hole leaves is for the text after it.
        let left = room.saturating_sub(taken);
        let after = (room / 4).max(left.saturating_sub(count(&prefix)));
        let after = self.suffix_budget.map_or(after, |budget| budget.min(room / 2));
        let suffix_shown = fim::fit_start(&suffix, after, &count);
        let left = left.saturating_sub(count(suffix_shown)).max(32);
        let prefix_shown = fim::fit_end(&prefix, self.prefix_budget.unwrap_or(left).min(left), &count);
        say_cut((&prefix, prefix_shown), (&suffix, suffix_shown));
        let name = |path: &Path| path.display().to_string();
        let path = self.file.as_deref().map_or_else(|| "file".to_owned(), name);
        let folder = std::env::current_dir().ok();
        let repository = folder
            .as_deref()
            .and_then(Path::file_name)
            .map_or("repository".into(), |name| name.to_string_lossy());
        let repository = Repository { name: &repository, files: &files, path: &path };
        let repository = (!files.is_empty()).then_some(&repository);
        let prompt = fim::prompt(tokenizer, repository, prefix_shown, suffix_shown)
            .map_err(|error| Failure::new(ErrorKind::Model, error.to_string()))?;
        let request = GenerateRequest {
            max_tokens: self.n_predict,
            stop_tokens: prompt.ends,
            join: (!self.no_join).then(|| self.join(language, &prefix, &suffix)),
            ..self.sampling.request()
        };
        let mut session = self.device.session(&model, &prefix, prompt.tokens.len() + self.n_predict)?;
        let mut out = Out::new();
        let answer = Answer::stream(&mut session, &prompt.tokens, &request, self.json, &mut out)?;
        self.device.explain_session(&session)?;
        if answer.text.is_empty() && !answer.interrupted() {
            anstream::eprintln!("{DIM}the model has nothing to add to the text after the hole{DIM:#}");
        }
        answer.report();
        answer.check()
    }

    fn join(&self, language: &'static Language, prefix: &str, suffix: &str) -> Join {
        let join = Join::new(language, prefix, suffix);
        if self.single_line { join.single_line() } else { join }
    }

    /// The files given as context, without the one with the hole.
    fn others(&self) -> Vec<&Path> {
        let own = self.file.as_deref().and_then(|path| path.canonicalize().ok());
        let is_own = |path: &&Path| own.is_some() && path.canonicalize().ok() == own;
        self.context.iter().map(PathBuf::as_path).filter(|path| !is_own(path)).collect()
    }

    /// What the model is shown of the files given as context: path and text, `room` tokens in all.
    fn context_files(
        &self,
        prefix: &str,
        suffix: &str,
        room: usize,
        count: &dyn Fn(&str) -> usize,
    ) -> Result<Vec<(String, String)>> {
        let wanted = fim::names_near(prefix, suffix);
        let others = self.others();
        let share = room / others.len().max(1);
        let mut files = Vec::new();
        for path in others {
            let text = input::file(path)?;
            // Bytes a token of this file stands for, so that the digest is cut near the share of tokens.
            let bytes_per_token = text.len() as f64 / count(&text).max(1) as f64;
            let bytes = (share as f64 * bytes_per_token * 0.95) as usize;
            let text = fim::digest(Language::of_file(path, &text), &text, &wanted, bytes);
            files.push((path.display().to_string(), text));
        }
        Ok(files)
    }

    /// The texts before and after the hole.
    fn around(&self) -> Result<(String, String)> {
        match (&self.prefix_file, &self.suffix_file, &self.file, self.at) {
            (Some(prefix), Some(suffix), ..) => Ok((input::file(prefix)?, input::file(suffix)?)),
            (_, _, Some(path), Some(place)) => {
                let text = input::file(path)?;
                let (prefix, suffix) = fim::split_at(&text, place.line, place.column)
                    .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
                Ok((prefix.to_owned(), suffix.to_owned()))
            }
            _ => Err(Failure::usage(
                "no hole to fill: give --file FILE --at LINE:COL, or --prefix-file FILE and --suffix-file FILE",
            )),
        }
    }
}

/// Says what of the texts around the hole the model does not see.
fn say_cut((prefix, prefix_shown): (&str, &str), (suffix, suffix_shown): (&str, &str)) {
    let characters = |text: &str| text.chars().count();
    let mut parts = Vec::new();
    if prefix_shown.len() < prefix.len() {
        let (all, shown) = (characters(prefix), characters(prefix_shown));
        parts.push(format!("of {all} characters before the hole the last {shown}"));
    }
    if suffix_shown.len() < suffix.len() {
        let (all, shown) = (characters(suffix), characters(suffix_shown));
        parts.push(format!("of {all} characters after the hole the first {shown}"));
    }
    if !parts.is_empty() {
        anstream::eprintln!("{DIM}the model sees {}; --ctx makes room for more{DIM:#}", parts.join(", "));
    }
}

/// Where the hole is: `LINE:COL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Place, String> {
        let parsed = || {
            let (line, column) = text.split_once(':')?;
            Some(Place { line: line.parse().ok()?, column: column.parse().ok()? })
        };
        parsed().ok_or_else(|| "expected LINE:COL, such as 12:5".into())
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn places() {
        assert_eq!("12:5".parse(), Ok(Place { line: 12, column: 5 }));
        for place in ["", "1", "-1:1", "a:b", "1:1:1"] {
            assert!(place.parse::<Place>().is_err(), "{place}");
        }
    }
}
