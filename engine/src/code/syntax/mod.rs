//! What a syntax forbids as the next bytes, as far as it can be told byte by byte: brackets close in the order they opened, a literal
//! of one line ends in it; and in Python, where blocks go by indentation, a header has a block, every line the indentation of an open
//! one, clauses follow their statements, and values and operators take turns.
//!
//! A parser would forbid more. Read byte by byte, this forbids nothing that is right, at about 40 ns a byte.

mod expression;
#[cfg(test)]
mod tests;

use super::languages::{Language, Layout, Word};
use super::lexer::{Lexer, Sink, is_word};
use super::scanner::Name;
use expression::{Expression, is_prefix};

/// Reads a text and judges what may follow.
#[derive(Clone, Debug)]
pub struct Syntax {
    lexer: Lexer,
    rules: Rules,
}

/// In place of a closing bracket: a splice is open, which `}` ends.
const SPLICE: u8 = b'`';

/// Which statements go on with the one before at their indentation, by their first words (Python language reference, section 8).
const CLAUSES: [(&[u8], &[&[u8]]); 4] = [
    (b"elif", &[b"if", b"elif"]),
    (b"else", &[b"if", b"elif", b"for", b"while", b"except"]),
    (b"except", &[b"try", b"except"]),
    (b"finally", &[b"try", b"except", b"else"]),
];

/// An open indentation.
#[derive(Clone, Copy, Debug)]
struct Level {
    column: u32,
    /// First word of its last statement; `None` where that is not known.
    word: Option<Name>,
}

impl Level {
    /// Whether only a clause of its last statement may follow.
    fn awaits_clause(&self) -> bool {
        self.begins_with(b"try")
    }

    fn begins_with(&self, word: &[u8]) -> bool {
        self.word.is_some_and(|name| name.as_bytes() == word)
    }
}

#[derive(Clone, Debug)]
struct Rules {
    language: &'static Language,
    /// What closes the open brackets.
    open: Vec<u8>,
    splice_ended: bool,
    /// The byte before was of a literal too.
    in_text: bool,
    /// Reading a line of the preprocessor, whose brackets need not match.
    directive: bool,
    word: Name,
    /// Whether the last thing was a value, so that `/` divides.
    value: bool,
    /// The last byte of punctuation, and whether a value was before it.
    last: u8,
    value_before: bool,
    levels: Vec<Level>,
    column: u32,
    line_has_code: bool,
    /// The text begins inside of something.
    cut: bool,
    /// A header has ended, and its block has not begun.
    awaits_block: bool,
    statement: Statement,
    expression: Expression,
    fault: bool,
}

/// The logical line being read.
#[derive(Clone, Copy, Debug, Default)]
struct Statement {
    begun: bool,
    /// Its first word has been read, or is none.
    named: bool,
    /// It needs a colon.
    header: bool,
    /// A colon outside brackets has come.
    colon: bool,
    /// The last byte of code was one.
    ends_in_colon: bool,
    /// The last byte was a backslash, which makes the next line part of it.
    joined: bool,
}

impl Syntax {
    /// At the beginning of a file; `None` for what is no programming language.
    pub fn new(language: &'static Language) -> Option<Syntax> {
        let rules = Rules {
            language,
            open: Vec::new(),
            splice_ended: false,
            in_text: false,
            directive: false,
            word: Name::EMPTY,
            value: false,
            last: 0,
            value_before: false,
            levels: Vec::new(),
            column: 0,
            line_has_code: false,
            cut: false,
            awaits_block: false,
            statement: Statement::default(),
            expression: Expression::default(),
            fault: false,
        };
        language.grammar.is_some().then(|| Syntax { lexer: Lexer::new(language), rules })
    }

    /// After a text.
    pub fn after(language: &'static Language, text: &[u8]) -> Option<Syntax> {
        let mut syntax = Syntax::new(language)?;
        syntax.read(text);
        Some(syntax)
    }

    /// Reads text; what is wrong with it is forgiven.
    pub fn read(&mut self, text: &[u8]) {
        // A byte order mark is part of no word.
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        text.iter().for_each(|&byte| self.push(byte));
        self.rules.fault = false;
    }

    /// Whether `bytes` may come next. `whole` says that no byte of their last word is still to come, nor, where they have a line end, of
    /// the next line's indentation, and that code follows there, not a comment.
    pub fn allows(&self, bytes: &[u8], whole: bool) -> bool {
        let mut after = self.clone();
        for &byte in bytes {
            after.push(byte);
            if after.rules.fault {
                return false;
            }
        }
        if whole && after.lexer.in_code() {
            after.rules.settle(bytes.contains(&b'\n'));
        }
        !after.rules.fault
    }

    /// Whether the text may end here.
    pub fn may_end(&self) -> bool {
        let mut after = self.clone();
        after.push(b'\n');
        let rules = &after.rules;
        let waits = rules.awaits_block || rules.levels.iter().any(Level::awaits_clause);
        rules.open.is_empty() && after.lexer.in_code() && !waits && !rules.fault
    }

    fn push(&mut self, byte: u8) {
        self.rules.fault |= self.lexer.breaks_literal(byte);
        // One literal right behind another is two.
        self.rules.in_text &= !self.lexer.in_code();
        self.lexer.push(byte, &mut self.rules);
        if std::mem::take(&mut self.rules.splice_ended) {
            self.lexer.end_splice();
        }
    }
}

impl Rules {
    fn colons(&self) -> bool {
        self.language.layout == Layout::Colon
    }

    /// The word or the indentation so far is whole.
    fn settle(&mut self, with_indentation: bool) {
        if !self.word.is_empty() {
            if !self.expression.may_be_prefix(self.word.as_bytes()) {
                self.end_word();
            }
        } else if with_indentation && !self.statement.begun && self.open.is_empty() && self.column > 0 {
            self.begin_statement();
        }
    }

    /// The first byte of a logical line.
    fn begin_statement(&mut self) {
        if self.statement.begun || !self.open.is_empty() {
            return;
        }
        self.statement = Statement { begun: true, ..Statement::default() };
        self.expression = Expression::default();
        if !self.colons() {
            return;
        }
        let column = self.column;
        let top = self.levels.last().map_or(column, |level| level.column);
        if self.awaits_block != (column > top) && !self.levels.is_empty() {
            self.fault = true;
        }
        if self.levels.is_empty() {
            self.cut = column > 0;
            self.levels.push(Level { column, word: None });
        } else if column > top {
            self.levels.push(Level { column, word: Some(Name::EMPTY) });
        }
        self.awaits_block = false;
        self.leave(column);
        match self.levels.last() {
            Some(level) if level.column == column => {}
            // A text that was cut may begin deeper than it goes on.
            Some(_) => self.fault = true,
            None => self.levels.push(Level { column, word: None }),
        }
    }

    /// Leaves the blocks deeper than `column`; one that only a handler may follow is not left.
    fn leave(&mut self, column: u32) {
        while self.levels.last().is_some_and(|level| level.column > column) {
            self.fault |= self.levels.pop().is_some_and(|level| level.awaits_clause());
        }
    }

    /// The first word of a statement; an empty one where it begins with something else.
    fn name(&mut self, word: Name) {
        if self.statement.named || !self.colons() || !self.open.is_empty() {
            return;
        }
        let meaning = self.language.word(word.as_bytes());
        if meaning == Some(Word::Continues) {
            return;
        }
        self.statement.named = true;
        self.statement.header = matches!(meaning, Some(Word::Control | Word::Function | Word::Class));
        let Some(level) = self.levels.last_mut() else { return };
        let Some(before) = level.word.replace(word) else { return };
        let clause = CLAUSES.iter().find(|(clause, _)| *clause == word.as_bytes());
        let goes_on = clause.is_some_and(|(_, after)| after.contains(&before.as_bytes()));
        // `try` waits for a clause, and a clause for its statement.
        self.fault |= !goes_on && (clause.is_some() || before.as_bytes() == b"try");
    }

    /// Whether a word may begin like this.
    fn may_begin(&self, word: &[u8]) -> bool {
        let unnamed = !self.statement.named && self.open.is_empty();
        let waits = unnamed && self.levels.last().is_some_and(Level::awaits_clause);
        let clause =
            |(clause, after): &(&[u8], &[&[u8]])| clause.starts_with(word) && after.contains(&&b"try"[..]);
        self.expression.may_begin(word) && (!waits || CLAUSES.iter().any(clause))
    }

    fn end_word(&mut self) {
        let word = std::mem::replace(&mut self.word, Name::EMPTY);
        let meaning = self.language.word(word.as_bytes());
        self.value = matches!(meaning, None | Some(Word::Continues));
        if self.colons() {
            let first = !self.statement.named && self.open.is_empty();
            self.fault |= !self.expression.word(word.as_bytes(), first);
        }
        self.name(word);
    }

    fn end_line(&mut self) {
        self.column = 0;
        self.line_has_code = false;
        let Statement { begun, header, colon, ends_in_colon, joined, .. } = self.statement;
        self.statement.joined = false;
        if joined {
            return;
        }
        self.directive = false;
        if !begun || !self.open.is_empty() {
            return;
        }
        if self.colons() {
            let soft = self
                .levels
                .last()
                .is_some_and(|level| level.begins_with(b"match") || level.begins_with(b"case"));
            self.fault |= header && !colon || ends_in_colon && !header && !soft || !self.expression.may_end();
            self.awaits_block |= ends_in_colon;
        }
        self.statement = Statement::default();
    }

    fn close(&mut self, byte: u8) {
        let at = self.open.iter().rposition(|&close| close == byte || (close == SPLICE && byte == b'}'));
        match at {
            Some(at) => {
                self.fault |= at + 1 < self.open.len();
                self.splice_ended = self.open[at] == SPLICE;
                self.open.truncate(at);
            }
            // A text that was cut may close what it does not open.
            None => self.fault |= !self.cut && (byte != b'}' || self.colons()) || !self.open.is_empty(),
        }
    }

    fn punctuation(&mut self, byte: u8) {
        if self.directive {
            return;
        }
        if self.colons() {
            self.fault |= !self.expression.punctuation(byte, self.statement.header);
        }
        match byte {
            b'(' => self.open.push(b')'),
            b'[' => self.open.push(b']'),
            b'{' => self.open.push(b'}'),
            b')' | b']' | b'}' => self.close(byte),
            _ => {}
        }
        let colon = byte == b':' && self.open.is_empty();
        self.statement.colon |= colon;
        self.statement.ends_in_colon = colon;
        // `value! / 2` divides in TypeScript, and so does `i++ / 2`; what comes after `<` may be the end of a tag.
        let doubled = matches!(byte, b'+' | b'-') && self.last == byte && self.value_before;
        self.value_before = self.value;
        self.last = byte;
        self.value =
            matches!(byte, b')' | b']' | b'}' | b'.' | b'<') || (byte == b'!' && self.value) || doubled;
    }
}

impl Sink for Rules {
    fn code(&mut self, byte: u8) {
        if is_word(byte) {
            self.line_has_code = true;
            self.begin_statement();
            self.word.push(byte);
            self.fault |= self.colons() && !self.may_begin(self.word.as_bytes());
            self.statement.ends_in_colon = false;
            self.statement.joined = false;
            return;
        }
        if !self.word.is_empty() {
            self.end_word();
        }
        if byte.is_ascii_whitespace() {
            self.expression.pause();
        }
        match byte {
            b'\n' => self.end_line(),
            b'\r' => {}
            b' ' | b'\t' | b'\x0c' if self.statement.begun || !self.open.is_empty() => {}
            b' ' => self.column += 1,
            // To a multiple of 8 (Python language reference, section 2.1.8).
            b'\t' => self.column = (self.column / 8 + 1) * 8,
            b'\x0c' => self.column = 0,
            b'\\' => self.statement.joined = true,
            _ => {
                self.directive |= byte == b'#' && self.language.lexis.preprocessor && !self.line_has_code;
                self.line_has_code = true;
                self.begin_statement();
                self.name(Name::EMPTY);
                self.statement.joined = false;
                self.punctuation(byte);
            }
        }
    }

    fn comment(&mut self, byte: u8) {
        if !self.word.is_empty() {
            self.end_word();
        }
        if byte == b'\n' {
            self.end_line();
        }
    }

    fn text(&mut self, _byte: u8) {
        self.line_has_code = true;
        if is_prefix(self.word.as_bytes()) {
            self.word.clear();
        } else {
            self.end_word();
        }
        self.begin_statement();
        if self.colons() && !self.in_text {
            self.fault |= !self.expression.text();
        }
        self.in_text = true;
        self.name(Name::EMPTY);
        self.statement.ends_in_colon = false;
        self.statement.joined = false;
        self.value = true;
    }

    fn splice(&mut self) {
        self.open.push(SPLICE);
        self.value = false;
    }

    fn value_expected(&self) -> bool {
        self.word.is_empty() && !self.value
    }
}
