//! The causal scanner: source text, byte by byte, to lines and scopes.
//!
//! What it says of a byte's place (scope, depth, scope position) depends on earlier bytes only and is never revised. What
//! a line *is* may become known later: the lines of a header turn from body to header when its body opens.
//!
//! ```text
//! bytes -> Lexer (code, comment, literal) -> Braces or Indents (statements, brackets) -> scopes
//!                                        \-> lines
//! ```

use std::ops::Range;

use super::braces::Braces;
use super::fences::Fences;
use super::indents::Indents;
use super::languages::{Language, Layout, MARKDOWN};
use super::lexer::{Lexer, Sink};
use super::{Kind, Line, Scope, ScopeId};

/// Open scopes at most; what is nested deeper counts as part of the deepest.
const MAX_DEPTH: usize = 256;

/// Longest name that is kept, in bytes.
pub(super) const MAX_NAME: usize = 40;

/// Reads one file of one language. Cloning it forks the reading, for example where a middle is filled in.
#[derive(Clone, Debug)]
pub struct Scanner {
    lexer: Lexer,
    inner: Inner,
    fences: Option<Fences>,
}

/// A name in the making; what is too long is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    bytes: [u8; MAX_NAME],
    len: u8,
}

impl Name {
    pub(super) const EMPTY: Name = Name { bytes: [0; MAX_NAME], len: 0 };

    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        if usize::from(self.len) < MAX_NAME {
            self.bytes[usize::from(self.len)] = byte;
            self.len += 1;
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What the layouts know of the place they are at, and what they tell of scopes.
#[derive(Clone, Debug)]
pub(super) struct Outline {
    pub(super) lines: Vec<Line>,
    pub(super) scopes: Vec<Scope>,
    /// Open scopes, outermost first.
    open: Vec<ScopeId>,
    /// Scopes beyond [`MAX_DEPTH`].
    beyond: usize,
    position: u32,
    revision: u64,
    offset: usize,
    /// The line being read.
    line: Line,
    seen: Seen,
}

/// What the line being read holds.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    code: bool,
    comment: bool,
    text: bool,
    import: bool,
}

impl Outline {
    fn new() -> Outline {
        let line = Line { start: 0, kind: Kind::Blank, depth: 0, scope: None };
        Outline {
            lines: Vec::new(),
            scopes: Vec::new(),
            open: Vec::new(),
            beyond: 0,
            position: 0,
            revision: 0,
            offset: 0,
            line,
            seen: Seen::default(),
        }
    }

    /// Number of the line being read.
    pub(super) fn line_number(&self) -> u32 {
        self.lines.len() as u32
    }

    pub(super) fn depth(&self) -> usize {
        self.open.len() + self.beyond
    }

    /// A scope opens here; its header began in line `first` and ends in this one.
    pub(super) fn open(&mut self, name: &Name, first: u32) {
        self.open_after(name, first..self.line_number() + 1);
    }

    /// A scope opens here, after these lines of header.
    pub(super) fn open_after(&mut self, name: &Name, header: Range<u32>) {
        self.step();
        if self.open.len() >= MAX_DEPTH {
            self.beyond += 1;
            return;
        }
        let first = header.start.min(self.line_number());
        for line in &mut self.lines[first as usize..] {
            if matches!(line.kind, Kind::Body | Kind::String) {
                line.kind = Kind::Header;
            }
        }
        if header.end > self.line_number() {
            self.line.kind = Kind::Header;
        }
        let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
        let parent = self.open.last().copied();
        self.scopes.push(Scope { name, parent, header, end: None });
        self.open.push(ScopeId(self.scopes.len() as u32 - 1));
        self.revision += 1;
    }

    /// The innermost scope closes here.
    pub(super) fn close(&mut self) {
        if self.beyond > 0 {
            self.beyond -= 1;
        } else if let Some(ScopeId(id)) = self.open.pop() {
            self.scopes[id as usize].end = Some(self.line_number() + 1);
            self.revision += 1;
        }
        if self.depth() == 0 {
            self.step();
        }
    }

    /// A block opens, or an item of the file begins.
    pub(super) fn step(&mut self) {
        self.position = self.position.saturating_add(1);
    }

    /// The line being read belongs to an import.
    pub(super) fn import(&mut self) {
        self.seen.import = true;
    }

    /// The place of the line's first code is known.
    pub(super) fn begin_code(&mut self) {
        if !self.seen.code {
            self.seen.code = true;
            self.place();
        }
    }

    pub(super) fn line_has_code(&self) -> bool {
        self.seen.code
    }

    /// The line's place is the one its first byte of text has.
    fn place(&mut self) {
        self.line.depth = self.depth() as u32;
        self.line.scope = self.open.last().copied();
    }

    fn end_line(&mut self) {
        let Seen { code, comment, text, import } = self.seen;
        if !code && !text {
            self.place();
        }
        if self.line.kind != Kind::Header {
            self.line.kind = match () {
                () if import && (code || text) => Kind::Import,
                () if code => Kind::Body,
                () if text => Kind::String,
                () if comment => Kind::Comment,
                () => Kind::Blank,
            };
        }
        self.revision += u64::from(self.line.kind == Kind::Import);
        self.lines.push(self.line);
        self.line = Line { start: self.offset, kind: Kind::Blank, ..self.line };
        self.seen = Seen::default();
    }
}

/// How scopes are delimited.
#[derive(Clone, Debug)]
enum Reader {
    Braces(Box<Braces>),
    Indents(Box<Indents>),
}

impl Reader {
    fn new(language: &'static Language) -> Reader {
        match language.layout {
            Layout::Braces => Reader::Braces(Box::new(Braces::new(language))),
            Layout::Colon | Layout::Indentation => Reader::Indents(Box::new(Indents::new(language))),
        }
    }
}

/// What the lexer talks to.
#[derive(Clone, Debug)]
struct Inner {
    outline: Outline,
    reader: Reader,
    /// The brace that closes a splice has come.
    splice_ended: bool,
}

impl Sink for Inner {
    #[inline]
    fn code(&mut self, byte: u8) {
        match &mut self.reader {
            Reader::Braces(braces) => self.splice_ended |= braces.code(byte, &mut self.outline),
            Reader::Indents(indents) => indents.code(byte, &mut self.outline),
        }
    }

    #[inline]
    fn comment(&mut self, byte: u8) {
        if byte == b'\n' {
            self.code(byte);
        } else if !byte.is_ascii_whitespace() {
            self.outline.seen.comment = true;
            match &mut self.reader {
                Reader::Braces(braces) => braces.gap(&mut self.outline),
                Reader::Indents(indents) => indents.gap(&mut self.outline),
            }
        }
    }

    #[inline]
    fn text(&mut self, byte: u8) {
        if !byte.is_ascii_whitespace() {
            match &mut self.reader {
                Reader::Braces(braces) => braces.text(&mut self.outline),
                Reader::Indents(indents) => indents.text(&mut self.outline),
            }
            if !self.outline.seen.text && !self.outline.seen.code {
                self.outline.place();
            }
            self.outline.seen.text = true;
        }
    }

    fn splice(&mut self) {
        if let Reader::Braces(braces) = &mut self.reader {
            braces.splice();
        }
    }

    fn value_expected(&self) -> bool {
        match &self.reader {
            Reader::Braces(braces) => braces.value_expected(),
            Reader::Indents(_) => false,
        }
    }
}

impl Scanner {
    /// At the beginning of a file.
    pub fn new(language: &'static Language) -> Scanner {
        let inner = Inner { outline: Outline::new(), reader: Reader::new(language), splice_ended: false };
        let fences = (language.name == MARKDOWN.name).then(Fences::new);
        Scanner { lexer: Lexer::new(language), inner, fences }
    }

    /// What follows is in this language; no scope of what came before goes on.
    #[cold]
    fn turn_to(&mut self, language: &'static Language) {
        while self.inner.outline.depth() > 0 {
            self.inner.outline.close();
        }
        self.inner.reader = Reader::new(language);
        self.inner.splice_ended = false;
        self.lexer = Lexer::new(language);
    }

    /// Reads one more byte.
    #[inline]
    pub fn push(&mut self, byte: u8) {
        self.lexer.push(byte, &mut self.inner);
        if std::mem::take(&mut self.inner.splice_ended) {
            self.lexer.end_splice();
        }
        self.inner.outline.offset += 1;
        if byte == b'\n' {
            self.inner.outline.end_line();
        }
        if let Some(language) = self.fences.as_mut().and_then(|fences| fences.push(byte)) {
            self.turn_to(language);
        }
    }

    /// Reads more bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.push(byte));
    }

    /// Lines whose end has been read.
    pub fn lines(&self) -> &[Line] {
        &self.inner.outline.lines
    }

    /// The line being read, as far as it is known, unless nothing of it has come.
    pub fn last_line(&self) -> Option<Line> {
        let outline = &self.inner.outline;
        let mut copy =
            Outline { lines: Vec::new(), scopes: Vec::new(), open: outline.open.clone(), ..*outline };
        (outline.offset > outline.line.start).then(|| {
            copy.end_line();
            copy.lines[0]
        })
    }

    /// Scopes in the order they opened.
    pub fn scopes(&self) -> &[Scope] {
        &self.inner.outline.scopes
    }

    /// Scopes that are open, outermost first.
    pub fn open_scopes(&self) -> &[ScopeId] {
        &self.inner.outline.open
    }

    /// Scope and block openings and top-level item boundaries so far: never decreases.
    pub fn position(&self) -> u32 {
        self.inner.outline.position
    }

    /// Bytes read.
    pub fn offset(&self) -> usize {
        self.inner.outline.offset
    }

    /// Changes whenever headers, imports or open scopes do.
    pub fn revision(&self) -> u64 {
        self.inner.outline.revision
    }

    /// Whether the next byte is code: no comment or literal is open.
    pub fn in_code(&self) -> bool {
        self.lexer.in_code()
    }

    /// Brackets that are open, of all kinds.
    pub fn open_brackets(&self) -> usize {
        match &self.inner.reader {
            Reader::Braces(braces) => braces.open_brackets(),
            Reader::Indents(indents) => indents.open_brackets(),
        }
    }
}
