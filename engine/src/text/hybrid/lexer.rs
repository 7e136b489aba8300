//! Cuts source text into spans of one class each, in one pass, without being told the language.
//!
//! ```text
//! code      words (identifiers, keywords), numbers, operators; until a quote or a comment opens
//! literal   what stands between quotes, with one space in front of words and of punctuation
//! prose     comments, tripled quotes, and lines that read like sentences
//! ```
//!
//! Operators, keywords, quotes, comment marks, spaces and line breaks that stand side by side are one span of the class
//! [`TokenClass::Structure`]. Which language it is, is guessed from the words that came before; a wrong guess costs
//! tokens, never bytes. The state follows from the bytes before, but for a look at the next few.

use super::BREAK;
use super::TokenClass::{self, Byte, Identifier, Literal, Prose, Structure};
use super::indent::{Indent, MAX_BLANK, is_space};
use super::keywords::{Family, Words};

/// Longest span of structure; longer ones are cut.
const MAX_STRUCTURE: usize = 48;
/// Longest span of another class; longer ones are cut, so that time stays linear.
pub(super) const MAX_SPAN: usize = 256;
/// Around code in documentation.
const FENCE: &[u8] = b"```";
/// Before code in tripled quotes.
const PROMPT: &[u8] = b">>> ";
/// How many bytes of a line are looked at to tell a sentence from code.
const LINE_SIGHT: usize = 160;

/// Inside of what the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Code,
    /// To the end of the line.
    LineComment,
    /// To `*/`.
    BlockComment,
    /// To the quote, or to the line's end where texts end there.
    Text {
        quote: u8,
        multiline: bool,
    },
    /// To the quote and so many hashes.
    Raw {
        hashes: u8,
    },
    /// To three quotes.
    Tripled {
        quote: u8,
    },
    /// A sentence, to the end of the line.
    Sentence,
}

/// Where a text stands.
#[derive(Clone, Debug)]
pub(in crate::text) struct Lexer {
    mode: Mode,
    pub(super) indent: Indent,
    /// How much speaks for each family, lately.
    hints: [u8; 3],
    /// Whether the last span in code was a word or a number.
    after_word: bool,
    /// How often, in this line, a word followed a word and a space.
    neighbours: u8,
    /// Whether the last lines were sentences.
    sentences: bool,
    /// Whether lines of comments and sentences are code, between lines that begin with [`FENCE`].
    fenced: bool,
    /// The quotes to go on in after this line of code, which a [`PROMPT`] began.
    tripled: Option<u8>,
}

impl Default for Lexer {
    fn default() -> Lexer {
        Lexer {
            mode: Mode::Code,
            indent: Indent::default(),
            hints: [0; 3],
            after_word: false,
            neighbours: 0,
            sentences: false,
            fenced: false,
            tripled: None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Word,
    Digit,
    Operator,
    Space,
    Newline,
    /// Control characters: tokens of their own.
    Control,
}

static SHAPES: [Shape; 256] = {
    let mut shapes = [Shape::Control; 256];
    let mut byte = 0;
    while byte < 256 {
        shapes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => Shape::Word,
            b'0'..=b'9' => Shape::Digit,
            b' ' | b'\t' => Shape::Space,
            b'\n' => Shape::Newline,
            0x21..=0x7E => Shape::Operator,
            _ => Shape::Control,
        };
        byte += 1;
    }
    shapes
};

fn shape(byte: u8) -> Shape {
    SHAPES[usize::from(byte)]
}

fn in_word(byte: u8) -> bool {
    matches!(shape(byte), Shape::Word | Shape::Digit)
}

/// The end of the word at `at`.
#[inline]
fn word_end(text: &[u8], at: usize) -> usize {
    let longest = &text[at..text.len().min(at + MAX_SPAN)];
    at + longest.iter().position(|&byte| !in_word(byte)).unwrap_or(longest.len())
}

/// One pass over a stretch of text.
struct Pass<'a, F> {
    lexer: &'a mut Lexer,
    words: &'a Words,
    text: &'a [u8],
    at: usize,
    /// The structure that has come since the last span.
    structure: &'a mut Vec<u8>,
    emit: F,
}

impl Lexer {
    /// Cuts `text`, which continues what came before, and calls `emit` with the class and the key of every span. The key
    /// of structure has [`BREAK`] and a break's code for a relative line break; other keys are the bytes themselves.
    /// `structure` is a buffer.
    pub(super) fn run(
        &mut self,
        words: &Words,
        text: &[u8],
        structure: &mut Vec<u8>,
        emit: impl FnMut(TokenClass, &[u8]),
    ) {
        structure.clear();
        let mut pass = Pass { lexer: self, words, text, at: 0, structure, emit };
        if pass.lexer.indent.at_line_start() {
            pass.line_start(0);
        }
        while pass.at < text.len() {
            match pass.lexer.mode {
                Mode::Code => pass.code(),
                Mode::LineComment | Mode::BlockComment | Mode::Tripled { .. } | Mode::Sentence => {
                    pass.content(Prose)
                }
                Mode::Text { .. } | Mode::Raw { .. } => pass.content(Literal),
            }
        }
        pass.flush();
    }

    fn family(&self) -> Option<Family> {
        let [hash, rust, slash] = self.hints;
        match hash.max(rust).max(slash) {
            0 => None,
            n if n == hash => Some(Family::Hash),
            n if n == rust => Some(Family::Rust),
            _ => Some(Family::Slash),
        }
    }

    fn hint(&mut self, family: Family) {
        let hint = &mut self.hints[family as usize];
        *hint += 2;
        if *hint > 30 {
            self.hints.iter_mut().for_each(|hint| *hint /= 2);
        }
    }
}

impl<F: FnMut(TokenClass, &[u8])> Pass<'_, F> {
    fn flush(&mut self) {
        if !self.structure.is_empty() {
            (self.emit)(Structure, self.structure);
            self.structure.clear();
        }
    }

    fn push(&mut self, byte: u8) {
        if self.structure.len() >= MAX_STRUCTURE {
            self.flush();
        }
        self.structure.push(byte);
    }

    fn span(&mut self, class: TokenClass, start: usize, end: usize) {
        self.flush();
        (self.emit)(class, &self.text[start..end]);
        self.at = end;
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn code(&mut self) {
        let byte = self.text[self.at];
        match shape(byte) {
            Shape::Word => self.word(),
            Shape::Digit => {
                let end = word_end(self.text, self.at);
                self.span(Literal, self.at, end);
                self.lexer.after_word = true;
                return;
            }
            Shape::Space => {
                self.push(byte);
                self.at += 1;
                return;
            }
            Shape::Newline => return self.newline(),
            Shape::Control => self.span(Byte, self.at, self.at + 1),
            Shape::Operator => self.operator(byte),
        }
        if shape(byte) != Shape::Word {
            self.lexer.after_word = false;
        }
    }

    fn word(&mut self) {
        let (start, end) = (self.at, word_end(self.text, self.at));
        let word = &self.text[start..end];
        if let Some(word) = self.words.find(word)
            && !(word.prefix && !matches!(self.text.get(end), Some(b'"' | b'\'' | b'#')))
        {
            if let Some(family) = word.hint {
                self.lexer.hint(family);
            }
            if self.structure.len() + (end - start) > MAX_STRUCTURE {
                self.flush();
            }
            self.structure.extend_from_slice(&self.text[start..end]);
            self.at = end;
            self.lexer.after_word = false;
            if word.prefix && self.text[end] == b'#' {
                self.raw();
            }
            return;
        }
        // One space between two words goes with the second.
        if self.lexer.after_word && self.structure[..] == *b" " && start > 0 && self.text[start - 1] == b' ' {
            self.lexer.neighbours += 1;
            if self.lexer.neighbours >= 2 {
                self.lexer.mode = Mode::Sentence;
                self.lexer.sentences = true;
                self.structure.clear();
                self.span(Prose, start - 1, end);
                return;
            }
            self.structure.clear();
            self.span(Identifier, start - 1, end);
        } else {
            self.span(Identifier, start, end);
        }
        self.lexer.after_word = true;
    }

    /// `r#"` and so on, after the prefix.
    fn raw(&mut self) {
        let hashes = self.text[self.at..].iter().take(100).take_while(|&&byte| byte == b'#').count();
        if self.peek(hashes) == b'"' {
            for _ in 0..hashes {
                self.push(b'#');
            }
            self.push(b'"');
            self.at += hashes + 1;
            self.lexer.mode = Mode::Raw { hashes: hashes as u8 };
        }
    }

    fn operator(&mut self, byte: u8) {
        let family = self.lexer.family();
        match byte {
            b'"' | b'\'' => self.quote(byte),
            b'#' if !matches!(family, Some(Family::Rust | Family::Slash)) && !self.directive() => {
                self.comment(1, b"#!");
            }
            b'/' if self.peek(1) == b'/' && family != Some(Family::Hash) => self.comment(2, b"/!"),
            b'/' if self.peek(1) == b'*' && family != Some(Family::Hash) => {
                self.mark(2);
                self.lexer.mode = Mode::BlockComment;
            }
            _ => {
                self.push(byte);
                self.at += 1;
                if byte == b';' || byte == b'{' || byte == b'}' {
                    self.lexer.neighbours = 0;
                }
            }
        }
    }

    /// Whether `#` begins an attribute or a line for the preprocessor.
    fn directive(&self) -> bool {
        let rest = &self.text[self.at + 1..];
        rest.starts_with(b"[")
            || rest.starts_with(b"![")
            || [&b"include"[..], b"define", b"if", b"endif", b"pragma", b"else", b"undef"]
                .iter()
                .any(|word| rest.starts_with(word))
    }

    fn mark(&mut self, n: usize) {
        for i in 0..n {
            self.push(self.text[self.at + i]);
        }
        self.at += n;
    }

    /// A comment's mark: `n` bytes, and all that follow of `more`.
    fn comment(&mut self, n: usize, more: &[u8]) {
        let rest = &self.text[self.at + n..];
        let further = rest.iter().take(8).take_while(|byte| more.contains(byte)).count();
        self.mark(n + further);
        let rest = self.text[self.at..].trim_ascii_start();
        if rest.starts_with(FENCE) {
            self.lexer.fenced = !self.lexer.fenced;
        } else if self.lexer.fenced {
            return;
        }
        self.lexer.mode = Mode::LineComment;
    }

    fn quote(&mut self, quote: u8) {
        let family = self.lexer.family();
        if self.peek(1) == quote && self.peek(2) == quote {
            self.mark(3);
            if self.lexer.tripled.take() == Some(quote) {
                return;
            }
            self.lexer.mode = Mode::Tripled { quote };
            return;
        }
        let prefixed = self.structure.last().is_some_and(u8::is_ascii_alphabetic);
        let apostrophe = quote == b'\'' && self.at > 0 && in_word(self.text[self.at - 1]) && !prefixed;
        // 'a is a lifetime, 'a' and '\n' are characters.
        let next = self.peek(1);
        let lifetime = quote == b'\''
            && family == Some(Family::Rust)
            && next != b'\\'
            && !(2..=5).any(|n| self.peek(n) == b'\'' && (n == 2 || next >= 0x80));
        self.mark(1);
        if !apostrophe && !lifetime {
            let multiline = family == Some(Family::Rust) && quote == b'"';
            self.lexer.mode = Mode::Text { quote, multiline };
        }
    }

    /// What stands in a literal, a comment or a sentence.
    fn content(&mut self, class: TokenClass) {
        let byte = self.text[self.at];
        if self.close(byte) {
            return;
        }
        let start = self.at;
        let spaces = self.text[start..].iter().take(MAX_SPAN).take_while(|&&byte| byte == b' ').count();
        let after = start + spaces;
        let next = self.text.get(after).copied();
        // One space goes with what follows; the others stand alone.
        let follows =
            next.is_some_and(|next| in_word(next) || shape(next) == Shape::Operator && !self.closes(after));
        if spaces > 1 || spaces == 1 && !follows {
            return self.span(class, start, after - usize::from(follows));
        }
        let Some(next) = next else { return self.span(class, start, after) };
        match shape(next) {
            Shape::Word | Shape::Digit => {
                let end = word_end(self.text, after);
                self.span(self.word_class(class, spaces, start, end), start, end);
            }
            Shape::Newline => self.newline(),
            Shape::Control | Shape::Space => self.span(Byte, start, start + 1),
            Shape::Operator => {
                let mut end = after;
                while end < self.text.len().min(start + MAX_SPAN) && shape(self.text[end]) == Shape::Operator
                {
                    if self.text[end] == b'\\' && self.escapes() {
                        // A backslash and what it escapes stay together.
                        end += 1;
                        end += usize::from(self.text.get(end).is_some_and(|&byte| byte.is_ascii_graphic()));
                        break;
                    }
                    if end > after && self.closes(end) {
                        break;
                    }
                    end += 1;
                }
                self.span(class, start, end);
            }
        }
    }

    /// The class of a word in a literal or in prose. A literal that is one word is a name, and one of several words is
    /// prose from the second on; a word in prose that something other than a space precedes is a name, too.
    fn word_class(&self, class: TokenClass, spaces: usize, start: usize, end: usize) -> TokenClass {
        match class {
            Literal if spaces > 0 => Prose,
            Literal if !self.structure.is_empty() && end < self.text.len() && self.closes(end) => Identifier,
            Prose if spaces == 0 && self.structure.is_empty() && start > 0 => Identifier,
            class => class,
        }
    }

    fn escapes(&self) -> bool {
        matches!(self.lexer.mode, Mode::Text { .. } | Mode::Tripled { .. })
    }

    /// Whether what is being read ends at `at`.
    fn closes(&self, at: usize) -> bool {
        let rest = &self.text[at..];
        match self.lexer.mode {
            Mode::Code | Mode::LineComment | Mode::Sentence => false,
            Mode::BlockComment => rest.starts_with(b"*/"),
            Mode::Text { quote, .. } => rest[0] == quote,
            Mode::Raw { hashes } => {
                let hashes = usize::from(hashes);
                rest[0] == b'"' && rest.len() > hashes && rest[1..=hashes].iter().all(|&byte| byte == b'#')
            }
            Mode::Tripled { quote } => rest.starts_with(&[quote; 3]),
        }
    }

    /// Goes on in code if what is being read ends here.
    fn close(&mut self, byte: u8) -> bool {
        if byte.is_ascii_alphanumeric() || !self.closes(self.at) {
            return false;
        }
        let n = match self.lexer.mode {
            Mode::Raw { hashes } => 1 + usize::from(hashes),
            Mode::Tripled { .. } => 3,
            Mode::BlockComment => 2,
            _ => 1,
        };
        self.mark(n);
        self.lexer.mode = Mode::Code;
        self.lexer.after_word = false;
        true
    }

    /// Line ends, and the indentation of the next line that has more than spaces.
    fn newline(&mut self) {
        let rest = &self.text[self.at..];
        let ends = rest.iter().take_while(|&&byte| byte == b'\n').count();
        self.lexer.mode = match self.lexer.mode {
            Mode::LineComment | Mode::Sentence | Mode::Text { multiline: false, .. } if !self.continued() => {
                Mode::Code
            }
            mode => mode,
        };
        if let Some(quote) = self.lexer.tripled.take() {
            self.lexer.mode = Mode::Tripled { quote };
        }
        let indentation = rest[ends..].iter().take_while(|&&byte| is_space(byte)).count();
        let next = rest.get(ends + indentation);
        let blank = (ends - 1).min(MAX_BLANK);
        let relative = match next {
            Some(b'\n' | b'\r') => None,
            // Nobody knows yet how the next line is indented.
            None if indentation == 0 => None,
            _ => self.lexer.indent.relative(&rest[ends..ends + indentation], blank),
        };
        match relative {
            Some(line_break) => {
                (0..ends - 1 - blank).for_each(|_| self.push(b'\n'));
                if self.structure.len() + 2 > MAX_STRUCTURE {
                    self.flush();
                }
                self.structure.extend([BREAK, line_break.code()]);
                self.lexer.indent.feed(&rest[..ends + indentation]);
                self.at += ends + indentation;
                self.begin_line();
            }
            None => {
                (0..ends).for_each(|_| self.push(b'\n'));
                self.lexer.indent.feed(&rest[..ends]);
                self.line_start(ends);
            }
        }
    }

    /// Whether a backslash carries a text over the line's end.
    fn continued(&self) -> bool {
        matches!(self.lexer.mode, Mode::Text { .. }) && self.at > 0 && self.text[self.at - 1] == b'\\'
    }

    /// Spaces at the start of a line, `skip` bytes from here, as they are.
    fn line_start(&mut self, skip: usize) {
        self.at += skip;
        let rest = &self.text[self.at..];
        let spaces = rest.iter().take_while(|&&byte| is_space(byte)).count();
        for i in 0..spaces {
            self.push(rest[i]);
        }
        self.lexer.indent.feed(&rest[..spaces]);
        self.at += spaces;
        self.begin_line();
    }

    fn begin_line(&mut self) {
        self.lexer.neighbours = 0;
        self.lexer.after_word = false;
        let Some(&next) = self.text.get(self.at) else { return };
        if next != b'\n' {
            self.lexer.indent.feed(&[next]);
        }
        match self.lexer.mode {
            Mode::Tripled { quote } if self.text[self.at..].starts_with(PROMPT) => {
                self.lexer.tripled = Some(quote);
                self.lexer.mode = Mode::Code;
            }
            Mode::Code if self.lexer.sentences && self.text[self.at..].starts_with(FENCE) => {
                self.lexer.fenced = !self.lexer.fenced;
                self.lexer.mode = Mode::Sentence;
            }
            Mode::Code if self.lexer.sentences && !self.lexer.fenced && next != b'\n' => {
                self.lexer.sentences = self.is_sentence();
                if self.lexer.sentences {
                    self.lexer.mode = Mode::Sentence;
                }
            }
            // Code that is in no comment ends what a comment began.
            Mode::Code if self.lexer.fenced && !self.lexer.sentences && next != b'/' && next != b'#' => {
                self.lexer.fenced = false;
            }
            _ => (),
        }
    }

    /// Whether the line that begins here reads like the sentences before it.
    fn is_sentence(&self) -> bool {
        let line = &self.text[self.at..self.text.len().min(self.at + LINE_SIGHT)];
        let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let call = |pair: &[u8]| in_word(pair[0]) && matches!(pair[1], b'(' | b'[');
        !line.iter().any(|byte| b";{}=@".contains(byte)) && !line.windows(2).any(call)
    }
}
