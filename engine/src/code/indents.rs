//! Scopes by indentation: after a header that ends in a colon (Python), or wherever a line is indented deeper.

use super::languages::{Language, Layout, Word};
use super::lexer::is_word;
use super::scanner::{Name, Outline};

/// Open brackets and blocks at most.
const MAX_DEPTH: u32 = 1 << 16;
const MAX_BLOCKS: usize = 512;

#[derive(Clone, Debug)]
pub(super) struct Indents {
    language: &'static Language,
    /// Open blocks: the column of their header, and whether they are scopes.
    blocks: Vec<(u32, bool)>,
    brackets: u32,
    column: u32,
    /// The last byte was a backslash, so that a line end does not end the line.
    joined: bool,
    word: Name,
    statement: Statement,
    /// Where the header of the next scope begins, if decorators have come.
    decorated: Option<u32>,
}

/// The logical line being read.
#[derive(Clone, Copy, Debug)]
struct Statement {
    begun: bool,
    first_line: u32,
    column: u32,
    meaning: Option<Word>,
    name: Name,
    decorator: bool,
    /// The last byte of code was a colon outside brackets.
    colon: bool,
}

const NO_STATEMENT: Statement = Statement {
    begun: false,
    first_line: 0,
    column: 0,
    meaning: None,
    name: Name::EMPTY,
    decorator: false,
    colon: false,
};

/// Columns a tab advances to a multiple of (Python language reference, section 2.1.8).
const TAB: u32 = 8;

impl Indents {
    pub(super) fn new(language: &'static Language) -> Indents {
        Indents {
            language,
            blocks: Vec::new(),
            brackets: 0,
            column: 0,
            joined: false,
            word: Name::EMPTY,
            statement: NO_STATEMENT,
            decorated: None,
        }
    }

    pub(super) fn open_brackets(&self) -> usize {
        self.brackets as usize
    }

    pub(super) fn code(&mut self, byte: u8, outline: &mut Outline) {
        if is_word(byte) {
            if !outline.line_has_code() {
                self.begin(byte, outline);
            }
            self.word.push(byte);
            self.column = self.column.saturating_add(1);
            self.statement.colon = false;
            return;
        }
        if !self.word.is_empty() {
            self.end_word(outline);
        }
        match byte {
            b'\n' => {
                self.end_line(outline);
                return;
            }
            b'\t' => self.column = (self.column / TAB + 1).saturating_mul(TAB),
            b' ' => self.column = self.column.saturating_add(1),
            b'\x0c' => self.column = 0,
            b'\r' => {}
            _ => {
                if !outline.line_has_code() {
                    self.begin(byte, outline);
                }
                self.column = self.column.saturating_add(1);
                self.punctuation(byte, outline);
            }
        }
        self.joined = byte == b'\\' || (self.joined && byte == b'\r');
    }

    /// A comment: it ends words.
    pub(super) fn gap(&mut self, outline: &mut Outline) {
        if !self.word.is_empty() {
            self.end_word(outline);
        }
    }

    /// A byte of a literal: it begins a statement like code does.
    pub(super) fn text(&mut self, outline: &mut Outline) {
        self.gap(outline);
        if !self.statement.begun {
            self.begin_statement(outline);
        }
        self.statement.colon = false;
        self.joined = false;
    }

    /// The first code of a line.
    fn begin(&mut self, _byte: u8, outline: &mut Outline) {
        if !self.statement.begun {
            self.begin_statement(outline);
        }
        outline.begin_code();
        if self.statement.meaning == Some(Word::Import) {
            outline.import();
        }
    }

    fn begin_statement(&mut self, outline: &mut Outline) {
        let column = self.column;
        let deeper = self.language.layout == Layout::Indentation;
        if deeper && !self.statement.begun && column > self.statement.column && outline.line_number() > 0 {
            // The statement before turns out to be a header.
            if self.blocks.len() < MAX_BLOCKS {
                self.blocks.push((self.statement.column, true));
                let header = self.statement.first_line..outline.line_number();
                outline.open_after(&self.statement.name, header);
            }
        }
        while self.blocks.last().is_some_and(|&(header, _)| header >= column) {
            if let Some((_, true)) = self.blocks.pop() {
                outline.close();
            }
        }
        if column == 0 {
            outline.step();
        }
        self.statement = Statement { begun: true, first_line: outline.line_number(), column, ..NO_STATEMENT };
    }

    fn end_word(&mut self, outline: &mut Outline) {
        let word = std::mem::replace(&mut self.word, Name::EMPTY);
        let statement = &mut self.statement;
        if statement.decorator || self.brackets > 0 {
            return;
        }
        match statement.meaning {
            None => {
                statement.meaning = match self.language.word(word.as_bytes()) {
                    Some(Word::Continues) => None,
                    Some(meaning) => Some(meaning),
                    None => Some(Word::Operator),
                };
                match statement.meaning {
                    Some(Word::Import) => outline.import(),
                    Some(Word::Operator) if statement.name.is_empty() => statement.name = word,
                    _ => {}
                }
            }
            // `async for` is one, `async def` too.
            Some(Word::Function | Word::Class) if statement.name.is_empty() => statement.name = word,
            _ => {}
        }
    }

    fn punctuation(&mut self, byte: u8, outline: &mut Outline) {
        self.statement.colon = byte == b':' && self.brackets == 0;
        match byte {
            b'(' | b'[' | b'{' => self.brackets = (self.brackets + 1).min(MAX_DEPTH),
            b')' | b']' | b'}' => self.brackets = self.brackets.saturating_sub(1),
            b'@' if self.statement.meaning.is_none() && !self.statement.decorator => {
                self.statement.decorator = self.language.layout == Layout::Colon;
            }
            b':' if self.brackets == 0 => self.colon(outline),
            _ => {}
        }
    }

    /// A colon outside brackets ends a header, once.
    fn colon(&mut self, outline: &mut Outline) {
        let Statement { column, first_line, meaning, name, .. } = self.statement;
        if self.language.layout != Layout::Colon || self.blocks.len() >= MAX_BLOCKS {
            return;
        }
        match meaning {
            Some(Word::Function | Word::Class) if !name.is_empty() => {
                self.blocks.push((column, true));
                outline.open(&name, self.decorated.take().unwrap_or(first_line));
            }
            Some(Word::Control) => {
                self.blocks.push((column, false));
                outline.step();
            }
            _ => return,
        }
        self.statement.meaning = Some(Word::Operator);
    }

    fn end_line(&mut self, outline: &mut Outline) {
        self.column = 0;
        let goes_on = self.brackets > 0 || self.joined;
        self.joined = false;
        if goes_on || !self.statement.begun {
            return;
        }
        if self.statement.decorator {
            self.decorated.get_or_insert(self.statement.first_line);
        } else if outline.line_has_code() {
            self.decorated = None;
        }
        match self.language.layout {
            Layout::Colon => self.statement = NO_STATEMENT,
            // It may turn out to be a header.
            _ => self.statement.begun = false,
        }
    }
}
