//! Scopes by braces: what the statement before a `{` says decides what the brace opens.
//!
//! Every open bracket is a frame with the statement that is being read in it, so that what stands in parentheses does
//! not disturb the statement around them.

mod brackets;
mod directives;

use directives::Directive;

use super::languages::{Language, LineEnds, Word};
use super::lexer::is_word;
use super::scanner::{Name, Outline};
use super::statement::{Frame, Last, NO_HEAD, Role};

#[derive(Clone, Debug)]
pub(super) struct Braces {
    language: &'static Language,
    frames: Vec<Frame>,
    /// Brackets beyond as many frames as are kept.
    beyond: usize,
    word: Name,
    last: Last,
    /// The name before `last`, if that is a name.
    last_name: Name,
    /// A line has ended since `last`.
    new_line: bool,
    directive: Option<Directive>,
    /// Frames at every open `#if`.
    conditions: Vec<Vec<Frame>>,
    conditions_beyond: usize,
}

impl Braces {
    pub(super) fn new(language: &'static Language) -> Braces {
        let file = Frame {
            role: Role::Items,
            scope: false,
            in_function: false,
            import: false,
            types: false,
            head: NO_HEAD,
        };
        Braces {
            language,
            frames: vec![file],
            beyond: 0,
            word: Name::EMPTY,
            last: Last::Start,
            last_name: Name::EMPTY,
            new_line: false,
            directive: None,
            conditions: Vec::new(),
            conditions_beyond: 0,
        }
    }

    pub(super) fn open_brackets(&self) -> usize {
        self.frames.len() - 1 + self.beyond
    }

    fn frame(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("invariant: the file's frame is never popped")
    }

    fn role(&self) -> Role {
        self.frames.last().map_or(Role::Items, |frame| frame.role)
    }

    pub(super) fn value_expected(&self) -> bool {
        match if self.word.is_empty() { self.last } else { Last::Name } {
            Last::Start | Last::Arrow => true,
            Last::Name | Last::Text => false,
            Last::Word(word) => word != Word::Continues,
            Last::Byte(byte) => !matches!(byte, b')' | b']' | b'}' | b'.'),
        }
    }

    /// Reads a byte of code; says whether it closed a splice.
    #[inline]
    pub(super) fn code(&mut self, byte: u8, outline: &mut Outline) -> bool {
        if self.directive.is_some() {
            self.directive_byte(byte, outline);
            return false;
        }
        if is_word(byte) {
            if self.word.is_empty() {
                self.begin(byte, outline);
            }
            self.word.push(byte);
            return false;
        }
        if !self.word.is_empty() {
            self.end_word(outline);
        }
        match byte {
            b'\n' => {
                self.new_line = true;
                if self.language.line_ends == LineEnds::AfterValue && self.ends_value() && !self.in_group() {
                    self.end_statement();
                }
                false
            }
            b' ' | b'\t' | b'\r' | 0x0b | 0x0c => false,
            b'#' if self.language.lexis.preprocessor && !outline.line_has_code() => {
                outline.begin_code();
                self.directive = Some(Directive { name: Name::EMPTY, named: false, joined: false });
                false
            }
            _ => {
                self.begin(byte, outline);
                let closed = self.punctuation(byte, outline);
                self.last = match (self.last, byte) {
                    (Last::Byte(b'='), b'>') => Last::Arrow,
                    // `::` separates names and is no colon.
                    (Last::Byte(b':'), b':') => Last::Byte(b'.'),
                    _ => Last::Byte(byte),
                };
                closed
            }
        }
    }

    /// A comment: it ends words.
    pub(super) fn gap(&mut self, outline: &mut Outline) {
        if self.directive.is_none() && !self.word.is_empty() {
            self.end_word(outline);
        }
    }

    /// A byte of a literal.
    pub(super) fn text(&mut self, outline: &mut Outline) {
        if self.directive.is_some() {
            return;
        }
        self.gap(outline);
        if self.last != Last::Text || self.new_line {
            if !self.frame().head.begun || self.new_line {
                self.begin(b'"', outline);
            }
            self.last = Last::Text;
        }
    }

    /// `${` in a template.
    pub(super) fn splice(&mut self) {
        self.push(Role::Splice, false);
        self.last = Last::Start;
    }

    /// The first byte of a word or a sign: a statement may end before it, or begin with it.
    fn begin(&mut self, byte: u8, outline: &mut Outline) {
        if self.new_line {
            self.new_line = false;
            let between = matches!(self.language.line_ends, LineEnds::BetweenValues | LineEnds::BetweenNames);
            if between && self.line_ends_statement(byte) {
                self.end_statement();
            }
        }
        if self.frame().head.label {
            self.frame().head.label = false;
            if byte != b':' {
                self.end_statement();
            }
        }
        if byte != b'"' {
            outline.begin_code();
        }
        let line = outline.line_number();
        let file = self.frames.len() == 1;
        let frame = self.frame();
        if !frame.head.begun {
            frame.head.begun = true;
            frame.head.line = line;
            if file && !matches!(byte, b';' | b'}') {
                outline.step();
            }
        }
        if frame.import || frame.head.meaning == Some(Word::Import) {
            outline.import();
        }
    }

    fn ends_value(&self) -> bool {
        match self.last {
            Last::Name | Last::Text => true,
            Last::Word(word) => matches!(word, Word::Operator | Word::Shape),
            // `++` and `--` end a statement in Go.
            Last::Byte(byte) => matches!(byte, b')' | b']' | b'}' | b'+' | b'-'),
            Last::Start | Last::Arrow => false,
        }
    }

    /// In parentheses a line end means nothing, except in Go's groups of imports and types.
    fn in_group(&self) -> bool {
        self.frames.last().is_some_and(|frame| frame.role == Role::Group && !frame.types && !frame.import)
    }

    /// JavaScript: whether a line that begins with `byte` is a new statement.
    fn line_ends_statement(&self, byte: u8) -> bool {
        let Some(frame) = self.frames.last() else { return false };
        let announced = matches!(frame.head.meaning, Some(Word::Function | Word::Class | Word::Contextual));
        let decorators = frame.head.words == 0;
        // `import a.*`
        let all = frame.head.meaning == Some(Word::Import) && self.last == Last::Byte(b'*');
        !matches!(frame.role, Role::Group | Role::Splice)
            && (self.ends_value() || all)
            && (is_word(byte) || matches!(byte, b'"' | b'@' | b'#'))
            && (!announced || self.language.line_ends == LineEnds::BetweenNames)
            && !decorators
    }

    fn end_statement(&mut self) {
        let frame = self.frame();
        frame.head = NO_HEAD;
        if frame.types {
            frame.head.meaning = Some(Word::Type);
        }
    }

    fn end_word(&mut self, outline: &mut Outline) {
        let meaning =
            if self.last == Last::Byte(b'.') { None } else { self.language.word(self.word.as_bytes()) };
        let last = std::mem::replace(&mut self.last, meaning.map_or(Last::Name, Last::Word));
        std::mem::swap(&mut self.word, &mut self.last_name);
        self.sort_in(last, meaning, outline);
        self.word.clear();
    }

    /// Sorts in the word that has just ended, now `last_name`; `word` is the one before it.
    fn sort_in(&mut self, last: Last, meaning: Option<Word>, outline: &mut Outline) {
        let rust_macros = self.language.macro_calls;
        let go = self.language.line_ends == LineEnds::AfterValue;
        let (word, previous) = (&self.last_name, &self.word);
        let frame = self.frames.last_mut().expect("invariant: the file's frame is never popped");
        let members = matches!(frame.role, Role::Class | Role::Literal);
        let head = &mut frame.head;
        if last == Last::Byte(b'@') {
            head.decorating = true;
            if meaning != Some(Word::Class) {
                return;
            }
        }
        if head.angles > 0 {
            return;
        }
        head.decorating = meaning == Some(Word::Attribute);
        head.words = head.words.saturating_add(1);
        let announced = matches!(head.meaning, Some(Word::Function | Word::Class | Word::Macro));
        match meaning {
            Some(Word::Continues) => head.words -= 1,
            Some(Word::Import)
                if !announced && (head.words == 1 || word.as_bytes() == b"use")
                // `crate` imports only after `extern`.
                && word.as_bytes() != b"crate" =>
            {
                head.meaning = meaning;
                outline.import();
            }
            Some(Word::Import)
                if word.as_bytes() == b"crate" && last == Last::Name && previous.as_bytes() == b"extern" =>
            {
                head.meaning = Some(Word::Import);
                outline.import();
            }
            Some(Word::Function | Word::Class | Word::Contextual | Word::Macro)
                if !announced
                    && !head.new
                    && head.meaning != Some(Word::Import)
                    && !(go && meaning == Some(Word::Function) && last == Last::Byte(b']')) =>
            {
                // In Go `func` after a bracket is part of a type.
                // Assigned values may be functions and classes too.
                head.meaning = meaning;
                head.constants = word.as_bytes() == b"enum";
                if head.assigned && head.name.is_empty() {
                    head.name = head.called;
                }
                head.group = false;
                head.name_open = true;
            }
            // In `type X map[string]struct{}` the shape is not that of X.
            Some(Word::Shape)
                if head.meaning == Some(Word::Type)
                    && !head.assigned
                    && head.words == 2 + u16::from(!frame.types) =>
            {
                head.meaning = Some(Word::Class);
                head.name = head.called;
            }
            Some(Word::For) if head.meaning == Some(Word::Class) => {
                head.name_open = true;
                head.name = Name::EMPTY;
            }
            Some(Word::Type) if !announced => head.meaning = meaning,
            // In a class or an object, `if` and the like are names.
            Some(Word::Control) if head.meaning.is_none() && !members => head.meaning = meaning,
            Some(Word::New) => head.new = true,
            Some(Word::Template) => head.angles = 1,
            None => {
                if head.name_open && !(rust_macros && head.name.is_empty() && last == Last::Byte(b'<')) {
                    head.name = *word;
                    head.name_open = false;
                } else if head.meaning == Some(Word::Type) && head.called.is_empty() {
                    head.called = *word;
                }
            }
            _ => {}
        }
    }

    fn punctuation(&mut self, byte: u8, outline: &mut Outline) -> bool {
        let (last, role) = (self.last, self.role());
        let language = self.language;
        let last_name = &self.last_name;
        let members = matches!(role, Role::Class | Role::Literal);
        let head = &mut self.frames.last_mut().expect("invariant: the file's frame is never popped").head;
        // A word that could be a name is one, unless a name follows it.
        if head.meaning == Some(Word::Contextual) && head.name.is_empty() && head.name_open {
            head.meaning = None;
            head.name_open = false;
        }
        match byte {
            b'(' | b'[' => {
                if byte == b'(' && head.meaning == Some(Word::Import) && language.arrows && head.words == 1 {
                    head.meaning = None;
                }
                let opaque = language.macro_calls && last == Last::Byte(b'!');
                let import = byte == b'(' && head.meaning == Some(Word::Import);
                let types = byte == b'(' && head.meaning == Some(Word::Type);
                if byte == b'(' {
                    head.name_open = false;
                    let word = matches!(last, Last::Word(Word::Control | Word::Operator));
                    let named = last == Last::Name || (word && members);
                    if named && !head.assigned && !head.decorating && !(head.colon && head.group) {
                        head.called = *last_name;
                    }
                }
                self.push(if opaque { Role::Opaque } else { Role::Group }, import);
                self.frame().types = types;
                if types {
                    self.frame().head.meaning = Some(Word::Type);
                }
            }
            b'{' => self.open_brace(outline),
            b')' | b']' => {
                if matches!(self.role(), Role::Group | Role::Opaque) && self.beyond == 0 {
                    self.frames.pop();
                    let head = &mut self.frame().head;
                    if byte == b')' {
                        head.group |= !head.decorating && head.angles == 0;
                        head.decorating = false;
                    }
                } else {
                    self.beyond = self.beyond.saturating_sub(1);
                }
            }
            b'}' => return self.close_brace(outline),
            b';' if role != Role::Group => {
                if role == Role::Constants {
                    self.frame().role = Role::Class;
                }
                self.end_statement();
            }
            // In Go, `Type{..}` looks like a block and holds a list.
            b',' if (matches!(role, Role::Group | Role::Literal | Role::Constants)
                || (role == Role::Block && language.line_ends == LineEnds::AfterValue))
                && head.angles == 0 =>
            {
                self.end_statement();
            }
            b'=' if !matches!(last, Last::Byte(b'=' | b'!' | b'<' | b'>')) => {
                let operator = last_name.as_bytes() == b"operator" && !head.group;
                if head.angles == 0 && !operator {
                    head.assigned = true;
                    if last == Last::Name {
                        head.called = *last_name;
                    }
                }
            }
            b'<' if head.angles > 0 => head.angles = head.angles.saturating_add(1),
            b'>' if head.angles > 1 => {
                head.angles -= 1;
                if head.angles == 1 {
                    head.angles = 0;
                    head.words = 0;
                }
            }
            b':' if last != Last::Byte(b':') => {
                head.colon = head.group;
                if role == Role::Literal && last == Last::Name {
                    head.called = *last_name;
                }
                // A label or an access specifier ends here, unless another colon follows.
                let alone = head.words == 1 && !head.group && head.meaning.is_none();
                head.label = alone && head.angles == 0 && language.lexis.preprocessor;
            }
            _ => {}
        }
        false
    }
}
