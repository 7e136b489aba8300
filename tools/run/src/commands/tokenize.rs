//! `tokenize`: the tokens of a text.

use std::path::PathBuf;

use cchaha::text::Special;
use clap::{Args, ValueHint};
use serde_json::json;

use crate::args::ModelArgs;
use crate::exit::Result;
use crate::input;
use crate::output::{Align, Out, Table};

const EXAMPLES: &str = "\
Examples:
  cchaha-run tokenize -m model.gguf -p 'let x = 1;'
  cchaha-run tokenize -m model.gguf --file main.rs --json | jq '.tokens | length'
  cat main.rs | cchaha-run tokenize -m model.gguf

The tokens are those of the text alone, without BOS. A token that holds part of a character has no text of its own:
--json shows such bytes as U+FFFD in \"pieces\", the table as \\x and two hex digits.";

/// Show the tokens of a text
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tokenize {
    #[command(flatten)]
    model: ModelArgs,

    /// The text
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "file")]
    prompt: Option<String>,

    /// A file that holds the text; - is stdin
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,

    /// Read what looks like a special token, such as <|im_start|>, as that token
    #[arg(long)]
    special: bool,

    /// Print one JSON object: {"tokens":[..],"pieces":[..]}
    #[arg(long)]
    json: bool,
}

impl Tokenize {
    pub(crate) fn run(self) -> Result {
        let model = self.model.open()?;
        let text = input::text(self.prompt, self.file.as_deref(), ("text", "-p TEXT or --file FILE"))?;
        let tokenizer = model.tokenizer();
        let special = if self.special { Special::Parse } else { Special::Plain };
        let tokens = tokenizer.encode(&text, special);
        let pieces = tokens.iter().map(|&token| tokenizer.piece(token, true));
        let mut out = Out::new();
        if self.json {
            let pieces: Vec<_> = pieces.map(String::from_utf8_lossy).collect();
            out.json(&json!({ "tokens": tokens, "pieces": pieces }))?;
        } else {
            let mut table = Table::new(&[("token", Align::Right), ("piece", Align::Left)]);
            for (token, piece) in tokens.iter().zip(pieces) {
                table.row([token.to_string(), quoted(piece)]);
            }
            table.print(&mut out)?;
        }
        out.flush()
    }
}

/// In quotes, with control characters and loose bytes escaped.
fn quoted(piece: &[u8]) -> String {
    let mut text = String::from('"');
    for chunk in piece.utf8_chunks() {
        text.extend(chunk.valid().chars().flat_map(char::escape_debug));
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text + "\""
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn pieces_show_what_is_in_them() {
        assert_eq!(quoted(b" a\n"), r#"" a\n""#);
        assert_eq!(quoted(&[0xf0, 0x9f]), r#""\xf0\x9f""#);
        assert_eq!(quoted("é\"".as_bytes()), r#""é\"""#);
    }
}
