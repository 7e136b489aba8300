//! Pre-tokenizers: how a model family cuts text into words before merging; no merge crosses a word's edge.
//!
//! Each family published its rule as regular expressions applied in stages. Here a stage is a hand-written
//! scanner, so that time is linear in the text for every input. To add a rule: one file with its scanners, one
//! row in [`RULES`].

mod deepseek;
mod falcon;
mod gpt2;
mod llama3;

use super::unicode::{NUMBER, SPACE, Unit, first};

/// One family's rule.
pub(super) struct Rule {
    /// As `tokenizer.ggml.pre` names it.
    pub(super) name: &'static str,
    stages: &'static [Stage],
    /// Whether a word that is a token is that token, whatever the merges would make of it.
    pub(super) ignore_merges: bool,
    /// Whether prompts begin with BOS where the file does not say.
    pub(super) add_bos: bool,
}

const fn rule(name: &'static str, stages: &'static [Stage]) -> Rule {
    Rule { name, stages, ignore_merges: false, add_bos: false }
}

const fn llama3(name: &'static str) -> Rule {
    Rule { name, stages: &[llama3::word::<3>], ignore_merges: true, add_bos: true }
}

/// All rules, by the names files use.
#[rustfmt::skip]
static RULES: &[Rule] = &[
    rule("default", &[falcon::default_punctuation, gpt2::word, number_run, falcon::three_digits]),
    rule("gpt-2", &[gpt2::word]),
    rule("mpt", &[gpt2::word]),
    rule("starcoder", &[number, gpt2::word]),
    rule("refact", &[number, gpt2::word]),
    rule("smollm", &[number, gpt2::word]),
    rule("codeshell", &[number, gpt2::word]),
    rule("command-r", &[number, gpt2::word]),
    llama3("llama-bpe"),
    llama3("llama3"),
    llama3("llama-v3"),
    rule("qwen2", &[llama3::word::<1>]),
    rule("deepseek-r1-qwen", &[llama3::word::<1>]),
    rule("deepseek-coder", &[newline, deepseek::letters, deepseek::punctuation, deepseek::east_asian, number]),
    rule("deepseek-llm", &[newline, deepseek::cased_letters, deepseek::wide_punctuation, deepseek::trailing_spaces,
                           deepseek::east_asian, number]),
    rule("falcon", &[falcon::punctuation, gpt2::word, falcon::digits, falcon::three_digits]),
];

impl Rule {
    pub(super) fn find(name: &str) -> Option<&'static Rule> {
        RULES.iter().find(|rule| rule.name == name)
    }

    /// Names of all rules, for messages.
    pub(super) fn names() -> String {
        RULES.iter().map(|rule| rule.name).collect::<Vec<_>>().join(", ")
    }

    /// Calls `emit` for every word of `text`, in order; together the words are the text.
    pub(super) fn split(&self, text: &[u8], emit: &mut dyn FnMut(&[u8])) {
        split(self.stages, text, emit);
    }
}

/// What a stage finds at the start of a text. Lengths are in bytes, at least 1.
enum Scan {
    /// A word of its own.
    Word(usize),
    /// No word of this stage starts in so many bytes; they join what lies between two words.
    Skip(usize),
}

/// Never called with an empty text.
type Stage = fn(&[u8]) -> Scan;

/// Every stage cuts the words of the stage before it; what lies between two words is a word, too.
fn split(stages: &[Stage], text: &[u8], emit: &mut dyn FnMut(&[u8])) {
    let Some((stage, rest)) = stages.split_first() else { return emit(text) };
    let (mut from, mut at) = (0, 0);
    while at < text.len() {
        match stage(&text[at..]) {
            Scan::Skip(len) => at += len,
            Scan::Word(len) => {
                if from < at {
                    split(rest, &text[from..at], emit);
                }
                split(rest, &text[at..at + len], emit);
                at += len;
                from = at;
            }
        }
    }
    if from < at {
        split(rest, &text[from..at], emit);
    }
}

/// Length of the run of accepted units at the start of `text`.
#[inline]
fn run(text: &[u8], accept: impl Fn(Unit) -> bool) -> usize {
    let mut at = 0;
    while let Some(unit) = first(&text[at..]).filter(|&unit| accept(unit)) {
        at += usize::from(unit.len);
    }
    at
}

/// A word of `len` bytes, or none if that is 0.
fn word_or_skip(text: &[u8], len: usize) -> Scan {
    match len {
        0 => Scan::Skip(first(text).map_or(1, |unit| unit.len.into())),
        len => Scan::Word(len),
    }
}

/// `\s?X+`, X being the accepted units.
fn spaced_run(text: &[u8], accept: impl Fn(Unit) -> bool) -> Scan {
    let skip = first(text).filter(|unit| unit.is(SPACE)).map_or(0, |unit| unit.len.into());
    let len = run(&text[skip..], &accept);
    // A space may itself be accepted.
    word_or_skip(text, if len > 0 { skip + len } else { run(text, accept) })
}

/// `\s+(?!\S)|\s+`: a run of spaces without its last one, which belongs to the word that follows.
fn spaces(text: &[u8]) -> usize {
    let (mut last, mut at) = (0, 0);
    while let Some(unit) = first(&text[at..]).filter(|unit| unit.is(SPACE)) {
        last = at;
        at += usize::from(unit.len);
    }
    if at == text.len() || last == 0 { at } else { last }
}

/// `[\r\n]`
fn newline(text: &[u8]) -> Scan {
    word_or_skip(text, first(text).filter(|unit| unit.is_newline()).map_or(0, |_| 1))
}

/// `\p{N}`
fn number(text: &[u8]) -> Scan {
    word_or_skip(text, first(text).filter(|unit| unit.is(NUMBER)).map_or(0, |unit| unit.len.into()))
}

/// `\p{N}+`
fn number_run(text: &[u8]) -> Scan {
    word_or_skip(text, run(text, |unit| unit.is(NUMBER)))
}

#[cfg(test)]
mod tests;
