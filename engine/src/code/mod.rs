//! Code structure: which bytes, and then which tokens, belong to which scope.
//!
//! ```text
//! bytes -> Scanner  causal, incremental: lines (kind, depth, scope), scopes, scope positions
//!       -> exact    the same from a tree-sitter parse of a whole file, where there is a grammar
//! ```
//!
//! A *scope* is a function or a class-like thing with a body. A line's *depth* is the number of scopes around its first
//! byte of code; a header belongs to the scope around it, a closing bracket to the scope it closes.

mod braces;
mod exact;
mod fences;
mod indents;
mod languages;
mod lexer;
mod mend;
mod names;
mod scanner;
mod statement;
mod syntax;
#[cfg(test)]
mod tests;

pub use exact::{exact, parsed};
pub use languages::{LANGUAGES, Language, MARKDOWN, PLAIN, UNKNOWN};
pub use scanner::Scanner;
pub use syntax::Syntax;

use std::ops::Range;

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Part of an import.
    Import,
    /// Part of the header of a scope: from its decorators to where its body opens.
    Header,
    /// Any other code.
    Body,
    /// Comment only.
    Comment,
    /// Literal only, for example inside a docstring.
    String,
    /// White space only.
    Blank,
}

impl Kind {
    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Import => "import",
            Kind::Header => "header",
            Kind::Body => "body",
            Kind::Comment => "comment",
            Kind::String => "string",
            Kind::Blank => "blank",
        }
    }
}

/// Index into a [`Structure`]'s scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScopeId(pub u32);

/// A line of source text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Byte it begins at.
    pub start: usize,
    /// What it is.
    pub kind: Kind,
    /// Scopes around its first byte of code.
    pub depth: u32,
    /// The innermost of them.
    pub scope: Option<ScopeId>,
}

impl Line {
    /// Whether the structure-aware window keeps it in sight.
    pub fn pinned(&self) -> bool {
        matches!(self.kind, Kind::Import | Kind::Header)
    }
}

/// A function, class or the like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Its name; empty for anonymous ones.
    pub name: String,
    /// The scope around it.
    pub parent: Option<ScopeId>,
    /// Lines of its header, counted from 0.
    pub header: Range<u32>,
    /// The line after its last; `None` while it is open.
    pub end: Option<u32>,
}

/// Lines and scopes of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    /// In order.
    pub lines: Vec<Line>,
    /// In the order they open.
    pub scopes: Vec<Scope>,
}

impl Structure {
    /// What the scanner sees in a whole text.
    pub fn scan(language: &'static Language, source: &[u8]) -> Structure {
        let mut scanner = Scanner::new(language);
        scanner.feed(source);
        let mut lines = scanner.lines().to_vec();
        lines.extend(scanner.last_line());
        Structure { lines, scopes: scanner.scopes().to_vec() }
    }

    /// `Outer.inner` for a scope, empty for none.
    pub fn path(&self, scope: Option<ScopeId>) -> String {
        let mut names = Vec::new();
        let mut at = scope;
        while let Some(ScopeId(id)) = at {
            let scope = &self.scopes[id as usize];
            names.push(if scope.name.is_empty() { "<anonymous>" } else { &scope.name });
            at = scope.parent;
        }
        names.reverse();
        names.join(".")
    }
}
