//! Which bytes are code, comment and literal: a byte-wise state machine.
//!
//! A byte may have to wait for the next one (`/` for a second `/`); what it turns out to be is told then, before that one.

use super::languages::Language;

/// Hears what each byte is, in order.
pub(super) trait Sink {
    /// A byte of code, white space included.
    fn code(&mut self, byte: u8);
    /// A byte of a comment.
    fn comment(&mut self, byte: u8);
    /// A byte of a literal, its quotes included.
    fn text(&mut self, byte: u8);
    /// `${` in a template: code until the brace closes.
    fn splice(&mut self);
    /// Whether a value may begin here, so that `/` opens a regular expression.
    fn value_expected(&self) -> bool;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Code,
    /// After `/`, which waits.
    Slash,
    LineComment,
    /// `last` tells `*/` and `/*`; it is 0 after either.
    BlockComment {
        depth: u32,
        last: u8,
    },
    Text {
        quote: u8,
        escaped: bool,
    },
    /// After one or two of the quotes that open a tripled one.
    Quotes {
        quote: u8,
        n: u8,
    },
    Triple {
        quote: u8,
        run: u8,
        escaped: bool,
    },
    /// After `r` and `n` hashes, which wait.
    RawHashes(u32),
    /// In `r#"`: `run` hashes have come since a quote.
    RawText {
        hashes: u32,
        run: Option<u32>,
    },
    /// In the mark of `R"mark(`.
    RawMark,
    /// `at` bytes of `)mark"` have come.
    RawMarked {
        at: Option<u8>,
    },
    Backtick,
    Template {
        escaped: bool,
        dollar: bool,
    },
    Regex {
        escaped: bool,
        class: bool,
    },
    /// After a `'` that waits, and the byte after it.
    Tick(Option<u8>),
    /// In a character literal.
    Character {
        escaped: bool,
        left: u8,
    },
}

/// Longest mark of a raw literal (C++ allows 16 bytes).
const MARK: usize = 16;

#[derive(Clone, Debug)]
pub(super) struct Lexer {
    language: &'static Language,
    state: State,
    /// The last bytes of the word before, for prefixes of literals; 0 after anything else.
    word: u32,
    word_len: u32,
    /// Whether that word is a number.
    number: bool,
    mark: [u8; MARK],
    mark_len: u8,
    field: Field,
}

/// Prefixes of formatted literals, with the bits of lower case.
const FORMATTED: [u32; 6] =
    [prefix(b" f"), prefix(b" t"), prefix(b"fr"), prefix(b"rf"), prefix(b"tr"), prefix(b"rt")];

/// Replacement fields of formatted literals, where quotes do not end them (PEP 701).
#[derive(Clone, Copy, Debug, Default)]
struct Field {
    /// Whether the literal has any.
    there: bool,
    depth: u32,
    /// The last byte opened one; the same again is a brace of the text.
    opened: bool,
}

impl Field {
    fn new(there: bool) -> Field {
        Field { there, ..Field::default() }
    }

    /// Whether a byte of the literal is part of a field.
    #[inline]
    fn holds(&mut self, byte: u8) -> bool {
        if !self.there {
            return false;
        }
        let opened = std::mem::take(&mut self.opened);
        match byte {
            b'{' if opened => self.depth = 0,
            b'{' => {
                self.opened = self.depth == 0;
                self.depth += 1;
            }
            b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.depth > 0
    }
}

pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

const fn prefix(text: &[u8]) -> u32 {
    let mut word = 0;
    let mut i = 0;
    while i < text.len() {
        word = word << 8 | text[i] as u32;
        i += 1;
    }
    word
}

impl Lexer {
    pub(super) fn new(language: &'static Language) -> Lexer {
        Lexer {
            language,
            state: State::Code,
            word: 0,
            word_len: 0,
            number: false,
            mark: [0; MARK],
            mark_len: 0,
            field: Field::default(),
        }
    }

    /// Tells `sink` what `byte` and those that waited are.
    #[inline]
    pub(super) fn push(&mut self, byte: u8, sink: &mut impl Sink) {
        match self.state {
            State::Code => self.code(byte, sink),
            State::LineComment => {
                sink.comment(byte);
                if byte == b'\n' {
                    self.state = State::Code;
                }
            }
            State::Text { quote, escaped } => {
                sink.text(byte);
                self.state = match byte {
                    b'\n' if !escaped && !self.language.lexis.multiline => State::Code,
                    b'\r' if escaped => return,
                    _ if self.field.holds(byte) && !escaped && byte != b'\\' => return,
                    _ if escaped => State::Text { quote, escaped: false },
                    b'\\' => State::Text { quote, escaped: true },
                    _ if byte == quote => State::Code,
                    _ => return,
                };
            }
            _ => self.rare(byte, sink),
        }
    }

    /// The brace that closes a splice has come: the text of its template goes on.
    pub(super) fn end_splice(&mut self) {
        self.state = State::Template { escaped: false, dollar: false };
    }

    /// Whether this byte would end a literal that is not over. In markup inside of JavaScript nobody knows.
    pub(super) fn breaks_literal(&self, byte: u8) -> bool {
        match self.state {
            _ if self.language.lexis.regex => false,
            State::Text { escaped, .. } => byte == b'\n' && !escaped && !self.language.lexis.multiline,
            State::Quotes { n, .. } => byte == b'\n' && n == 1,
            State::Character { .. } | State::RawMark => byte == b'\n',
            _ => false,
        }
    }

    /// Whether the next byte is code whatever it is.
    pub(super) fn in_code(&self) -> bool {
        self.state == State::Code
    }

    fn code(&mut self, byte: u8, sink: &mut impl Sink) {
        if is_word(byte) {
            if self.word_len == 0 {
                self.number = byte.is_ascii_digit();
            }
            self.word = self.word << 8 | u32::from(byte);
            self.word_len += 1;
            sink.code(byte);
            return;
        }
        let word = if self.word_len <= 3 { self.word } else { 0 };
        let number = self.number && self.word_len > 0;
        (self.word, self.word_len) = (0, 0);
        let lexis = &self.language.lexis;
        let raw = |prefixes: &[u32]| prefixes.contains(&word);
        match byte {
            b'/' if lexis.slash_comments => self.state = State::Slash,
            b'#' if lexis.hash_comments => {
                self.state = State::LineComment;
                sink.comment(byte);
            }
            b'#' if lexis.raw_hashes && raw(&[prefix(b"r"), prefix(b"br"), prefix(b"cr")]) => {
                self.state = State::RawHashes(1);
            }
            b'"' if lexis.raw_hashes && raw(&[prefix(b"r"), prefix(b"br"), prefix(b"cr")]) => {
                self.state = State::RawText { hashes: 0, run: None };
                sink.text(byte);
            }
            b'"' if lexis.raw_marks
                && raw(&[prefix(b"R"), prefix(b"uR"), prefix(b"LR"), prefix(b"UR"), prefix(b"u8R")]) =>
            {
                self.state = State::RawMark;
                self.mark_len = 0;
                sink.text(byte);
            }
            // C++ and C23 group digits with apostrophes.
            b'\'' if lexis.preprocessor && number => {
                self.word_len = 1;
                sink.code(b'_');
            }
            b'\'' if lexis.lifetimes => self.state = State::Tick(None),
            b'`' if lexis.raw_backtick => {
                self.state = State::Backtick;
                sink.text(byte);
            }
            b'`' if lexis.template => {
                self.state = State::Template { escaped: false, dollar: false };
                sink.text(byte);
            }
            _ if lexis.triple.contains(&byte) => {
                self.field = Field::new(FORMATTED.contains(&(word | 0x2020)));
                self.state = State::Quotes { quote: byte, n: 1 };
                sink.text(byte);
            }
            _ if lexis.quotes.contains(&byte) => {
                self.state = State::Text { quote: byte, escaped: false };
                sink.text(byte);
            }
            _ => sink.code(byte),
        }
    }

    fn rare(&mut self, byte: u8, sink: &mut impl Sink) {
        match self.state {
            State::Slash => self.slash(byte, sink),
            State::BlockComment { depth, last } => {
                sink.comment(byte);
                self.state = match (last, byte) {
                    (b'*', b'/') if depth == 1 => State::Code,
                    (b'*', b'/') => State::BlockComment { depth: depth - 1, last: 0 },
                    (b'/', b'*') if self.language.lexis.nested_comments => {
                        State::BlockComment { depth: depth.saturating_add(1), last: 0 }
                    }
                    _ => State::BlockComment { depth, last: byte },
                };
            }
            State::Quotes { quote, n } => {
                if byte == quote {
                    sink.text(byte);
                    self.state = match n {
                        1 => State::Quotes { quote, n: 2 },
                        _ => State::Triple { quote, run: 0, escaped: false },
                    };
                    return;
                }
                // One quote: a literal has begun. Two: an empty one has ended.
                self.state = if n == 1 { State::Text { quote, escaped: false } } else { State::Code };
                self.push(byte, sink);
            }
            State::Triple { quote, run, escaped } => {
                sink.text(byte);
                let held = self.field.holds(byte);
                let run = if byte == quote && !escaped && !held { run + 1 } else { 0 };
                self.state = match run {
                    3 => State::Code,
                    _ => State::Triple { quote, run, escaped: !escaped && byte == b'\\' },
                };
            }
            State::RawHashes(n) => match byte {
                b'#' => self.state = State::RawHashes(n.saturating_add(1)),
                b'"' => {
                    (0..n).for_each(|_| sink.text(b'#'));
                    sink.text(byte);
                    self.state = State::RawText { hashes: n, run: None };
                }
                _ => {
                    (0..n).for_each(|_| sink.code(b'#'));
                    self.state = State::Code;
                    self.push(byte, sink);
                }
            },
            State::RawText { hashes, run } => {
                sink.text(byte);
                let run = match byte {
                    b'"' => Some(0),
                    b'#' => run.map(|n| n + 1),
                    _ => None,
                };
                self.state = if run == Some(hashes) { State::Code } else { State::RawText { hashes, run } };
            }
            State::RawMark => {
                sink.text(byte);
                match byte {
                    b'(' => self.state = State::RawMarked { at: None },
                    b'"' | b'\n' => self.state = State::Code,
                    _ if usize::from(self.mark_len) < MARK => {
                        self.mark[usize::from(self.mark_len)] = byte;
                        self.mark_len += 1;
                    }
                    _ => self.state = State::Text { quote: b'"', escaped: false },
                }
            }
            State::RawMarked { at } => {
                sink.text(byte);
                let mark = &self.mark[..usize::from(self.mark_len)];
                self.state = match at {
                    _ if byte == b')' => State::RawMarked { at: Some(0) },
                    Some(n) if usize::from(n) == mark.len() && byte == b'"' => State::Code,
                    Some(n) if mark.get(usize::from(n)) == Some(&byte) => {
                        State::RawMarked { at: Some(n + 1) }
                    }
                    _ => State::RawMarked { at: None },
                };
            }
            State::Backtick => {
                sink.text(byte);
                if byte == b'`' {
                    self.state = State::Code;
                }
            }
            State::Template { escaped, dollar } => {
                sink.text(byte);
                self.state = match byte {
                    _ if escaped => State::Template { escaped: false, dollar: false },
                    b'{' if dollar => {
                        sink.splice();
                        State::Code
                    }
                    b'`' => State::Code,
                    _ => State::Template { escaped: byte == b'\\', dollar: byte == b'$' },
                };
            }
            State::Regex { escaped, class } => {
                sink.text(byte);
                self.state = match byte {
                    b'\n' => State::Code,
                    _ if escaped => State::Regex { escaped: false, class },
                    b'\\' => State::Regex { escaped: true, class },
                    b'[' => State::Regex { escaped, class: true },
                    b']' => State::Regex { escaped, class: false },
                    b'/' if !class => State::Code,
                    _ => return,
                };
            }
            State::Tick(first) => self.tick(first, byte, sink),
            State::Character { escaped, left } => {
                sink.text(byte);
                self.state = match byte {
                    b'\'' if !escaped => State::Code,
                    _ if left == 0 || byte == b'\n' => State::Code,
                    _ => State::Character { escaped: !escaped && byte == b'\\', left: left - 1 },
                };
            }
            State::Code | State::LineComment | State::Text { .. } => {}
        }
    }

    fn slash(&mut self, byte: u8, sink: &mut impl Sink) {
        match byte {
            b'/' => {
                sink.comment(b'/');
                sink.comment(byte);
                self.state = State::LineComment;
            }
            b'*' => {
                sink.comment(b'/');
                sink.comment(byte);
                self.state = State::BlockComment { depth: 1, last: 0 };
            }
            _ if self.language.lexis.regex && sink.value_expected() => {
                sink.text(b'/');
                self.state = State::Regex { escaped: false, class: false };
                self.push(byte, sink);
            }
            _ => {
                sink.code(b'/');
                self.state = State::Code;
                self.push(byte, sink);
            }
        }
    }

    /// `'x'` is a character, `'x` a lifetime; the second byte decides, which for a letter is the one after it.
    fn tick(&mut self, first: Option<u8>, byte: u8, sink: &mut impl Sink) {
        match first {
            None if byte == b'\\' => {
                sink.text(b'\'');
                sink.text(byte);
                self.state = State::Character { escaped: true, left: 12 };
            }
            None if byte >= 0x80 => {
                sink.text(b'\'');
                sink.text(byte);
                self.state = State::Character { escaped: false, left: 4 };
            }
            None if byte == b'\n' => {
                sink.code(b'\'');
                self.state = State::Code;
                self.push(byte, sink);
            }
            None => self.state = State::Tick(Some(byte)),
            Some(first) if byte == b'\'' => {
                [b'\'', first, byte].into_iter().for_each(|byte| sink.text(byte));
                self.state = State::Code;
            }
            Some(first) => {
                sink.code(b'\'');
                self.state = State::Code;
                self.push(first, sink);
                self.push(byte, sink);
            }
        }
    }
}
