//! What is known of the statement being read inside a bracket.

use super::languages::Word;
use super::scanner::Name;

/// What a bracket opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The file, a module or namespace.
    Items,
    /// The body of a class.
    Class,
    /// The constants of an enum, which look like functions.
    Constants,
    /// The body of a function.
    Function,
    /// A block.
    Block,
    /// An object literal or another braced value.
    Literal,
    /// Parentheses or square brackets.
    Group,
    /// `${` in a template.
    Splice,
    /// Tokens of a macro: no code.
    Opaque,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) role: Role,
    /// Whether it is a scope.
    pub(super) scope: bool,
    /// Whether it is inside a function.
    pub(super) in_function: bool,
    /// Part of an import.
    pub(super) import: bool,
    /// Inside Go's `type (`.
    pub(super) types: bool,
    pub(super) head: Head,
}

/// What is known of the statement being read in a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// Line of its first code.
    pub(super) line: u32,
    pub(super) begun: bool,
    pub(super) meaning: Option<Word>,
    /// The word that announced it was an enum's.
    pub(super) constants: bool,
    pub(super) name: Name,
    pub(super) name_open: bool,
    /// The name before the last parentheses at this level, or before `=` or `:`.
    pub(super) called: Name,
    /// Parentheses that may hold parameters have closed.
    pub(super) group: bool,
    pub(super) assigned: bool,
    pub(super) new: bool,
    /// A colon has come after the parameters.
    pub(super) colon: bool,
    /// Names that are not part of decorators.
    pub(super) words: u16,
    /// Open angle brackets of template parameters, and one more; 0 outside them.
    pub(super) angles: u16,
    /// The last `@`, `#[` or attribute word: its parentheses are no parameters.
    pub(super) decorating: bool,
    /// A label has ended.
    pub(super) label: bool,
}

pub(super) const NO_HEAD: Head = Head {
    line: 0,
    begun: false,
    meaning: None,
    constants: false,
    name: Name::EMPTY,
    name_open: false,
    called: Name::EMPTY,
    group: false,
    assigned: false,
    new: false,
    colon: false,
    words: 0,
    angles: 0,
    decorating: false,
    label: false,
};

/// The last code that was no white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    Start,
    Name,
    Word(Word),
    Text,
    Arrow,
    Byte(u8),
}
