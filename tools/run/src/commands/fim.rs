//! `fim`: fill in the middle.

use std::path::PathBuf;
use std::sync::Arc;

use cchaha::fim::{self, FimError, FimPrompt, FimVocab};
use cchaha::text::{Special, Tokenizer};
use cchaha::{ErrorKind, GenerateRequest};
use clap::{Args, ValueHint};

use crate::answer::Answer;
use crate::args::{DeviceArgs, ModelArgs, positive};
use crate::exit::{Failure, Result};
use crate::input;
use crate::output::Out;
use crate::sampling::SamplingArgs;

const EXAMPLES: &str = "\
Examples:
  cchaha-run fim -m model.gguf --file src/main.rs --at 12:5
  cchaha-run fim -m model.gguf --prefix-file before.txt --suffix-file after.txt -n 64

Lines and columns count from 1; a column counts characters, and the hole is in front of it. Only the middle is printed.";

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
    pub(crate) fn run(self) -> Result {
        let (prefix, suffix) = self.around()?;
        let model = Arc::new(self.model.open()?);
        let prompt = prompt(model.tokenizer(), &prefix, &suffix)
            .map_err(|error| Failure::new(ErrorKind::Model, error.to_string()))?;
        let request = GenerateRequest {
            max_tokens: self.n_predict,
            stop_tokens: prompt.ends,
            ..self.sampling.request()
        };
        let mut session = self.device.session(&model)?;
        let mut out = Out::new();
        let answer = Answer::stream(&mut session, &prompt.tokens, &request, self.json, &mut out)?;
        answer.report();
        answer.check()
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

/// What the prompt takes from a tokenizer.
fn prompt(tokenizer: &Tokenizer, prefix: &str, suffix: &str) -> std::result::Result<FimPrompt, FimError> {
    let marks = tokenizer.fim();
    let vocab = FimVocab {
        encode: &|text| tokenizer.encode(text, Special::Plain),
        id_of: &|text| tokenizer.id_of(text),
        bos: tokenizer.bos().filter(|_| tokenizer.add_bos()),
        declared: [marks.prefix, marks.suffix, marks.middle],
    };
    fim::prompt(&vocab, prefix, suffix)
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
