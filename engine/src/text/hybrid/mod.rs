//! The hybrid code tokenizer: a lexer cuts source text into spans of one class, and every class has a vocabulary of its
//! own, so that the class of a token follows from its id.
//!
//! ```text
//! ids   control | bytes | structure | identifiers | literals | prose
//!
//! text --lexer--> spans (class, key) --atoms or parts--> merges of that class --> ids
//! ids --templates--> bytes, line breaks relative to the indentation so far --> text
//! ```
//!
//! *Structure* is a closed vocabulary: operators, keywords, quotes, comment marks, spaces and line breaks, and sequences
//! of them that are frequent. A line break is a token together with what it does to the indentation (see [`indent`]).
//! *Identifiers*, *literals* and *prose* are cut into parts at case, underscores and digits; byte-pair merges work inside
//! a part, and then between neighbouring parts that are a token each, so that frequent names are one token. No merge
//! joins two classes. Bytes that no class has a symbol for are tokens of their own, so every text can be encoded.

mod decode;
mod indent;
mod keywords;
mod learning;
mod lexer;
mod load;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub(super) use decode::{Decoder, Place};
use indent::{BREAKS, Break};
use keywords::Words;
pub use learning::{Initial, Splitter};
pub(in crate::text) use lexer::Lexer;

use super::bpe::Merges;
use super::merge::{Merge, Merger, Symbol};
use super::vocab::{NO_TOKEN, Pieces, hash, to_printable};
use super::{Scratch, TokenizerError};

/// What a token, or a span of text, belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TokenClass {
    /// Marks that are no text.
    Control,
    /// A byte that no class has a symbol for: control characters, and parts of rare characters.
    Byte,
    /// Operators, keywords, quotes, comment marks, spaces and line breaks.
    Structure,
    /// Names.
    Identifier,
    /// Numbers, and what stands between quotes.
    Literal,
    /// Comments, documentation and sentences.
    Prose,
}

use TokenClass::{Byte, Control, Identifier, Literal, Prose, Structure};

impl TokenClass {
    /// All, in the order of their ids.
    pub const ALL: [TokenClass; 6] = [Control, Byte, Structure, Identifier, Literal, Prose];
    /// Those that have merges, in the order of their ids.
    pub const MERGING: [TokenClass; 4] = [Structure, Identifier, Literal, Prose];

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Control => "control",
            Byte => "byte",
            Structure => "structure",
            Identifier => "identifier",
            Literal => "literal",
            Prose => "prose",
        }
    }

    /// Its number among [`TokenClass::MERGING`].
    fn merging(self) -> Option<usize> {
        TokenClass::MERGING.iter().position(|&class| class == self)
    }
}

/// Two tokens that become one. Its id is its place in its class, behind the base symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// Id of the first.
    pub left: u32,
    /// Id of the second.
    pub right: u32,
    /// Whether it joins two whole parts of a word, and not symbols inside a part.
    pub parts: bool,
}

/// What makes a hybrid vocabulary, besides its control tokens: everything else follows from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HybridSpec {
    /// How many control tokens come first.
    pub n_control: u32,
    /// The words of the closed vocabulary.
    pub keywords: Vec<String>,
    /// Whether a span that is no structure belongs to a class by its hash and not by what it is: the placebo against
    /// which classes are measured.
    pub shuffled: bool,
    /// By class, in the order of [`TokenClass::MERGING`], and by rank.
    pub joins: [Vec<Join>; 4],
}

/// Begins a relative line break in the key of a structure span and in a structure token's template; its code follows.
const BREAK: u8 = 1;
/// Longest template, in bytes.
const MAX_TEMPLATE: usize = 64;
/// Bits of an id; those above tell the class and the kind of a pair it is in.
const ID_BITS: u32 = 28;
/// Marks the id of a token that is not a whole part.
const HALF: u32 = 1 << 31;
/// Longest run of parts that are looked at together.
const MAX_RUN: usize = 512;

/// What words of the closed vocabulary are made of.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Bytes that are no printable ASCII have tokens that all classes share.
fn is_shared(byte: u8) -> bool {
    !(0x20..0x7F).contains(&byte)
}

/// The class a span is encoded in.
fn class_of(class: TokenClass, key: &[u8], shuffled: bool) -> TokenClass {
    match class {
        Identifier | Literal | Prose if shuffled => {
            [Identifier, Literal, Prose][(hash(key, 0x5EED) >> 32) as usize % 3]
        }
        class => class,
    }
}

/// Bytes with a symbol in a class, in the order of their ids.
fn symbols(class: TokenClass, shuffled: bool) -> impl Iterator<Item = u8> {
    (0..=255_u8).filter(move |&byte| match class {
        Control => false,
        Byte => is_shared(byte),
        Structure => byte.is_ascii_punctuation() || matches!(byte, b' ' | b'\t' | b'\n'),
        Identifier if !shuffled => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b' '),
        Identifier | Literal | Prose => !is_shared(byte),
    })
}

/// The tables of a hybrid vocabulary.
pub(super) struct Hybrid {
    words: Words,
    shuffled: bool,
    /// First id of every class, and the end.
    starts: [u32; 7],
    /// Symbols of bytes, by class as in [`TokenClass::MERGING`].
    symbols: [[u32; 256]; 4],
    /// Id of relative line break 0.
    first_break: u32,
    merges: Merges,
    /// What every token but control tokens stands for, by id above theirs: bytes and relative line breaks.
    templates: Pieces,
}

impl Hybrid {
    pub(super) fn new(spec: &HybridSpec) -> Result<Hybrid, TokenizerError> {
        let wrong = |problem: String| TokenizerError::Hybrid { problem };
        let n_joins: usize = spec.joins.iter().map(Vec::len).sum();
        let room = (1 << (ID_BITS - 1)) as usize;
        if spec.n_control as usize + n_joins > room || spec.keywords.len() > 1 << 12 {
            return Err(wrong(format!("holds more than {room} tokens or 4096 keywords")));
        }
        let mut templates = Pieces::default();
        let mut starts = [spec.n_control; 7];
        let mut symbols_of = [[NO_TOKEN; 256]; 4];
        let mut next = spec.n_control;
        let mut push = |templates: &mut Pieces, template: &[u8]| {
            templates.push(template);
            next += 1;
            next - 1
        };
        let mut first_break = 0;
        let mut first_word = 0;
        let mut merges = Merges::with_capacity(n_joins);
        for (i, class) in TokenClass::ALL.into_iter().enumerate().skip(1) {
            let first = spec.n_control + templates.len() as u32;
            starts[i] = first;
            for byte in symbols(class, spec.shuffled) {
                let id = push(&mut templates, &[byte]);
                match class.merging() {
                    Some(class) => symbols_of[class][usize::from(byte)] = id,
                    None => symbols_of.iter_mut().for_each(|symbols| symbols[usize::from(byte)] = id),
                }
            }
            let Some(merging) = class.merging() else { continue };
            if class == Structure {
                first_break = first + symbols(class, spec.shuffled).count() as u32;
                for code in 0..BREAKS as u8 {
                    push(&mut templates, &[BREAK, code]);
                }
                first_word = first_break + BREAKS as u32;
                for word in &spec.keywords {
                    let long = word.len() > MAX_TEMPLATE / 4 || !word.bytes().all(is_word);
                    if long || word.bytes().next().is_none_or(|first| first.is_ascii_digit()) {
                        return Err(wrong(format!(
                            "keyword {word:?} is no word of 1 to 16 letters and digits"
                        )));
                    }
                    push(&mut templates, word.as_bytes());
                }
            }
            let mut joined = Vec::new();
            for (rank, join) in (0..).zip(&spec.joins[merging]) {
                let end = spec.n_control + templates.len() as u32;
                joined.clear();
                for part in [join.left, join.right] {
                    let own = (first..end).contains(&part);
                    let shared = class != Structure && (starts[1]..starts[2]).contains(&part);
                    let template = templates.get(part.wrapping_sub(spec.n_control) as usize);
                    match template.filter(|_| own || shared) {
                        Some(template) => joined.extend_from_slice(template),
                        None => {
                            return Err(wrong(format!(
                                "merge {rank} of {} joins token {part}, which is none of that class before it",
                                class.name()
                            )));
                        }
                    }
                }
                if joined.len() > MAX_TEMPLATE {
                    return Err(wrong(format!(
                        "merge {rank} of {} makes a token of more than {MAX_TEMPLATE} bytes",
                        class.name()
                    )));
                }
                let id = push(&mut templates, &joined);
                merges.insert(tagged(merging, join.parts, join.left), join.right, Merge { rank, id });
            }
        }
        starts[6] = spec.n_control + templates.len() as u32;
        // A printable byte that a class has no symbol for, should one ever come, is a literal's.
        let fallback = symbols_of[2];
        for symbols in &mut symbols_of {
            for (symbol, fallback) in symbols.iter_mut().zip(fallback) {
                *symbol = if *symbol == NO_TOKEN { fallback } else { *symbol };
            }
        }
        let words = Words::new(&spec.keywords, first_word);
        Ok(Hybrid {
            words,
            shuffled: spec.shuffled,
            starts,
            symbols: symbols_of,
            first_break,
            merges,
            templates,
        })
    }

    /// How many tokens there are.
    pub(super) fn len(&self) -> usize {
        self.starts[6] as usize
    }

    pub(super) fn class(&self, id: u32) -> TokenClass {
        let after = self.starts[1..6].iter().take_while(|&&start| id >= start).count();
        TokenClass::ALL[after]
    }

    fn template(&self, id: u32) -> &[u8] {
        let i = id.checked_sub(self.starts[1]);
        i.and_then(|i| self.templates.get(i as usize)).unwrap_or_default()
    }

    /// How files write a token: GPT-2's printable alphabet, line breaks by their names.
    pub(super) fn text(&self, id: u32) -> String {
        let mut text = String::new();
        self.read(id, |item| match item {
            Ok(bytes) => text.extend(bytes.iter().copied().map(to_printable)),
            Err(line_break) => text += &line_break.name(),
        });
        text
    }

    /// The bytes of a token where nothing is indented.
    pub(super) fn plain(&self, id: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.read(id, |item| match item {
            Ok(some) => bytes.extend_from_slice(some),
            Err(line_break) => bytes.extend(line_break.plain()),
        });
        bytes
    }

    /// Calls `each` with the stretches of bytes and the relative line breaks of a token.
    fn read(&self, id: u32, mut each: impl FnMut(Result<&[u8], Break>)) {
        let mut rest = self.template(id);
        if self.class(id) != Structure {
            return each(Ok(rest));
        }
        while let Some(&byte) = rest.first() {
            let n = rest.iter().take_while(|&&byte| byte != BREAK).count();
            if n > 0 {
                each(Ok(&rest[..n]));
                rest = &rest[n..];
            } else if byte == BREAK {
                if let Some(line_break) = rest.get(1).copied().and_then(Break::new) {
                    each(Err(line_break));
                }
                rest = rest.get(2..).unwrap_or_default();
            }
        }
    }

    /// Appends the ids of `text`, which goes on from where `lexer` stands.
    pub(super) fn encode(&self, lexer: &mut Lexer, text: &[u8], scratch: &mut Scratch, out: &mut Vec<u32>) {
        self.runs(lexer, text, scratch, |class, run, merger| {
            let merging = class.merging().unwrap_or(0);
            if let [id] = *run {
                return out.push(id & !HALF);
            }
            if matches!(class, Byte | Structure) {
                return out.extend_from_slice(run);
            }
            merger.symbols.clear();
            merger.symbols.extend((0..).zip(run).map(|(start, &id)| Symbol { start, len: 1, id }));
            merger.merge(|left, right| match (left.id | right.id) & HALF {
                0 => self.merges.get(tagged(merging, true, left.id), right.id),
                _ => Merge::NEVER,
            });
            out.extend(merger.symbols.iter().map(|symbol| symbol.id & !HALF));
        });
    }

    /// Calls `each` with every run of spans of one class: the ids of its parts, those that are not a whole part with
    /// [`HALF`].
    fn runs(
        &self,
        lexer: &mut Lexer,
        text: &[u8],
        scratch: &mut Scratch,
        mut each: impl FnMut(TokenClass, &[u32], &mut Merger),
    ) {
        let mut structure = std::mem::take(&mut scratch.escaped);
        let mut run = std::mem::take(&mut scratch.run);
        run.clear();
        let mut before = Byte;
        lexer.run(&self.words, text, &mut structure, |class, key| {
            let class = class_of(class, key, self.shuffled);
            if (class != before || class == Structure || run.len() > MAX_RUN) && !run.is_empty() {
                each(before, &run, &mut scratch.merger);
                run.clear();
            }
            before = class;
            self.span(class, key, scratch, &mut run);
        });
        if !run.is_empty() {
            each(before, &run, &mut scratch.merger);
        }
        (scratch.escaped, scratch.run) = (structure, run);
    }

    /// Reads `text` without encoding it.
    pub(super) fn skip(&self, lexer: &mut Lexer, text: &[u8]) {
        lexer.run(&self.words, text, &mut Vec::new(), |_, _| ());
    }

    /// Appends the ids of a span, before parts are joined.
    #[inline]
    fn span(&self, class: TokenClass, key: &[u8], scratch: &mut Scratch, out: &mut Vec<u32>) {
        let merging = class.merging().unwrap_or(0);
        if let [byte] = *key {
            return out.push(self.symbols[merging][usize::from(byte)]);
        }
        scratch.through_cache(class as u8, key, out, |merger, out| {
            let mut part = |merger: &mut Merger, halves: bool| {
                merger.merge(|left, right| self.merges.get(tagged(merging, false, left.id), right.id));
                let half = if halves && merger.symbols.len() > 1 { HALF } else { 0 };
                out.extend(merger.symbols.iter().map(|symbol| symbol.id | half));
            };
            merger.symbols.clear();
            if class == Structure {
                self.atoms(key, |id, start| merger.symbols.push(Symbol { start, len: 1, id }));
                return part(merger, false);
            }
            for range in part_ranges(key) {
                merger.symbols.clear();
                merger.symbols.extend(range.map(|at| Symbol {
                    start: at as u32,
                    len: 1,
                    id: self.symbols[merging][usize::from(key[at])],
                }));
                part(merger, true);
            }
        });
    }

    /// The atoms of a structure span: line breaks, keywords and bytes.
    fn atoms(&self, key: &[u8], mut each: impl FnMut(u32, u32)) {
        let mut at = 0;
        while at < key.len() {
            let start = at as u32;
            if key[at] == BREAK {
                let code = key.get(at + 1).copied().unwrap_or(0);
                each(self.first_break + u32::from(code), start);
                at += 2;
                continue;
            }
            let letters = key[at..].iter().take_while(|&&byte| is_word(byte)).count();
            match self.words.find(&key[at..at + letters]).filter(|_| letters > 0) {
                Some(word) => {
                    each(word.id, start);
                    at += letters;
                }
                None => {
                    each(self.symbols[0][usize::from(key[at])], start);
                    at += 1;
                }
            }
        }
    }
}

/// A left id with the class and the kind of the pair it is in.
fn tagged(merging: usize, parts: bool, id: u32) -> u32 {
    id | (merging as u32) << ID_BITS | u32::from(parts) << 31
}

/// The parts of a word: cut before underscores, between lower and upper case, before the last capital of several
/// (`HTTPServer`), and around every digit. A space at the start belongs to the first part.
pub fn part_ranges(word: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let kind = |at: usize| word.get(at).copied().unwrap_or(b' ');
    let edge = move |at: usize| {
        let (before, here) = (kind(at - 1), kind(at));
        if at == 1 && before == b' ' {
            return false;
        }
        let lower = |byte: u8| byte.is_ascii_lowercase() || byte >= 0x80;
        here == b'_' && before != b'_'
            || here.is_ascii_digit()
            || before.is_ascii_digit()
            || here.is_ascii_uppercase()
                && (lower(before) || before.is_ascii_uppercase() && lower(kind(at + 1)))
    };
    let mut start = 0;
    (1..=word.len())
        .filter(move |&at| at == word.len() || edge(at))
        .map(move |at| std::mem::replace(&mut start, at)..at)
}
