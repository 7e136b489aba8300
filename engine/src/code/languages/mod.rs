//! Languages: one file and one row of [`LANGUAGES`] each. What none of them claims is read as [`UNKNOWN`] or [`PLAIN`].

mod c;
mod cpp;
mod go;
mod java;
mod javascript;
mod python;
mod rust;
mod typescript;
mod unknown;

use std::path::Path;

/// What delimits scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Braces; indentation means nothing.
    Braces,
    /// A header ends in a colon and its body is indented deeper.
    Colon,
    /// Unknown: lines indented deeper than the one before belong to it.
    Indentation,
}

/// How a language writes comments and literals.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lexis {
    /// `# to the end of the line`.
    pub(crate) hash_comments: bool,
    /// `// to the end of the line` and `/* block */`.
    pub(crate) slash_comments: bool,
    /// Whether block comments nest.
    pub(crate) nested_comments: bool,
    /// Quotes of literals.
    pub(crate) quotes: &'static [u8],
    /// Whether such literals go on over line ends. Otherwise a line end closes them, so that a stray apostrophe costs
    /// one line.
    pub(crate) multiline: bool,
    /// Quotes that, tripled, open literals over several lines.
    pub(crate) triple: &'static [u8],
    /// `` `no escapes` ``.
    pub(crate) raw_backtick: bool,
    /// `` `text ${code}` ``.
    pub(crate) template: bool,
    /// `r#"no escapes"#`.
    pub(crate) raw_hashes: bool,
    /// `R"mark(no escapes)mark"`.
    pub(crate) raw_marks: bool,
    /// `'a` may be a lifetime, `'a'` a character.
    pub(crate) lifetimes: bool,
    /// `/regular expression/`.
    pub(crate) regex: bool,
    /// Lines that begin with `#` are for the preprocessor.
    pub(crate) preprocessor: bool,
}

/// Where a function may begin without a word that announces it: `name(parameters) {`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BareFunctions {
    /// Nowhere.
    Nowhere,
    /// In the bodies of classes.
    Classes,
    /// In the bodies of classes and in object literals.
    ClassesAndLiterals,
    /// Everywhere but in functions.
    OutsideFunctions,
}

/// What a word means at the beginning of statements, or wherever it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Begins an import.
    Import,
    /// Announces a function.
    Function,
    /// Announces a class or another named scope.
    Class,
    /// The same, if an identifier follows: it may be a name itself.
    Contextual,
    /// Announces a macro, whose body is no code.
    Macro,
    /// Begins a statement with a block.
    Control,
    /// An operator that reads like a name, after which a value begins.
    Operator,
    /// Makes an object; a brace behind it may open an anonymous class.
    New,
    /// Parameters in angle brackets follow.
    Template,
    /// Says that what follows goes on with the line before.
    Continues,
    /// In `impl Trait for Type`, that the name is still to come.
    For,
    /// Begins a type declaration (Go).
    Type,
    /// The shape of a type (Go).
    Shape,
    /// A function's attribute: parentheses behind it are not parameters.
    Attribute,
}

/// How statements end where no semicolon does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineEnds {
    /// They do not.
    Nothing,
    /// At a line end after a value (Go).
    AfterValue,
    /// At a line end after a value, if the next line begins with a name or a quote (JavaScript).
    BetweenValues,
    /// The same, after the beginning of a declaration too: `fun f() = 1` (unknown languages).
    BetweenNames,
}

/// A language: what the scanner and the exact parser need to know of it.
#[derive(Clone, Copy, Debug)]
pub struct Language {
    /// Lower-case name.
    pub name: &'static str,
    /// File name extensions, without the dot.
    pub extensions: &'static [&'static str],
    /// What its lines often begin with, and those of other languages more rarely.
    signs: &'static [&'static str],
    pub(crate) layout: Layout,
    pub(crate) lexis: Lexis,
    pub(crate) words: &'static [(&'static str, Word)],
    pub(crate) bare_functions: BareFunctions,
    pub(crate) line_ends: LineEnds,
    /// `=> {` opens a function.
    pub(crate) arrows: bool,
    /// `name! {` opens something that is no code.
    pub(crate) macro_calls: bool,
    /// How the exact parser reads it.
    pub(crate) grammar: Option<Grammar>,
}

/// A tree-sitter grammar and what its nodes mean.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grammar {
    pub(crate) language: fn() -> tree_sitter::Language,
    /// Kinds of nodes that are scopes where they have a `body`.
    pub(crate) scopes: &'static [&'static str],
    /// Kinds of nodes that wrap a scope and belong to its header.
    pub(crate) wrappers: &'static [&'static str],
    /// Kinds of nodes before a scope that belong to its header.
    pub(crate) attributes: &'static [&'static str],
    /// Kinds of nodes that are imports.
    pub(crate) imports: &'static [&'static str],
}

/// Unknown text, and code without braces: brackets and indentation.
pub const PLAIN: Language = Language {
    name: "plain",
    extensions: &["txt"],
    signs: &[],
    layout: Layout::Indentation,
    lexis: Lexis { quotes: b"\"'", ..NO_LEXIS },
    // Of what is indented below them these are not the name.
    words: &[
        ("class", Word::Class),
        ("def", Word::Function),
        ("defp", Word::Function),
        ("function", Word::Function),
        ("module", Word::Class),
        ("proc", Word::Function),
        ("sub", Word::Function),
        ("async", Word::Continues),
        ("export", Word::Continues),
        ("local", Word::Continues),
        ("private", Word::Continues),
        ("public", Word::Continues),
    ],
    bare_functions: BareFunctions::Nowhere,
    line_ends: LineEnds::Nothing,
    arrows: false,
    macro_calls: false,
    grammar: None,
};

/// Prose with code between fences, such as a chat: each piece of code is read as its own language.
pub const MARKDOWN: Language = Language { name: "markdown", extensions: &["md"], ..PLAIN };

/// Unknown code with braces.
pub const UNKNOWN: Language = unknown::LANGUAGE;

const NO_LEXIS: Lexis = Lexis {
    hash_comments: false,
    slash_comments: false,
    nested_comments: false,
    quotes: b"",
    multiline: false,
    triple: b"",
    raw_backtick: false,
    template: false,
    raw_hashes: false,
    raw_marks: false,
    lifetimes: false,
    regex: false,
    preprocessor: false,
};

/// Every language the engine knows by name.
pub static LANGUAGES: [&Language; 8] = [
    &python::LANGUAGE,
    &rust::LANGUAGE,
    &javascript::LANGUAGE,
    &typescript::LANGUAGE,
    &go::LANGUAGE,
    &c::LANGUAGE,
    &cpp::LANGUAGE,
    &java::LANGUAGE,
];

impl Language {
    /// The language of this name or with this extension; `None` where there is none. Besides [`LANGUAGES`] there are
    /// [`PLAIN`], [`MARKDOWN`] and [`UNKNOWN`].
    pub fn named(name: &str) -> Option<&'static Language> {
        let name = name.to_ascii_lowercase();
        let known = |row: &&Language| row.name == name || row.extensions.contains(&name.as_str());
        LANGUAGES.into_iter().chain([&PLAIN, &MARKDOWN, &UNKNOWN]).find(known)
    }

    /// The language of a file by its name; [`PLAIN`] for unknown ones.
    pub fn of_path(path: &Path) -> &'static Language {
        path.extension().and_then(|e| e.to_str()).and_then(Language::named).unwrap_or(&PLAIN)
    }

    /// The language of a file by its name, or where that has no extension by its text; of an extension that nobody claims [`UNKNOWN`]
    /// where lines end in braces, else [`PLAIN`].
    pub fn of_file(path: &Path, text: &str) -> &'static Language {
        let Some(extension) = path.extension().and_then(|e| e.to_str()) else { return Language::guess(text) };
        let braces = || text.lines().any(|line| line.trim_end().ends_with('{'));
        Language::named(extension).unwrap_or_else(|| if braces() { &UNKNOWN } else { &PLAIN })
    }

    /// The likeliest language of a text that came without a name: the one most of whose signs its first lines begin
    /// with, each sign worth the less the more languages share it. [`PLAIN`] where no line shows any.
    pub fn guess(text: &str) -> &'static Language {
        const LINES: usize = 200;
        let shared = |sign: &str| LANGUAGES.iter().filter(|row| row.signs.contains(&sign)).count() as f32;
        let mut best = (0.0, &PLAIN);
        for language in LANGUAGES {
            let signs = || language.signs.iter().map(|sign| (*sign, 1.0 / shared(sign)));
            let shown = |line: &str| {
                let fitting = signs().filter(|(sign, _)| line.starts_with(sign));
                fitting.map(|(_, worth)| worth).fold(0.0, f32::max)
            };
            let score: f32 = text.lines().take(LINES).map(|line| shown(line.trim_start())).sum();
            if score > best.0 {
                best = (score, language);
            }
        }
        best.1
    }

    /// Whether blocks go by indentation.
    pub(crate) fn indents(&self) -> bool {
        self.layout != Layout::Braces
    }

    /// What `word` means; `None` for a mere name.
    pub(crate) fn word(&self, word: &[u8]) -> Option<Word> {
        if !word.first()?.is_ascii_lowercase() && word[0] != b'_' {
            return None;
        }
        self.words.iter().find(|row| row.0.as_bytes() == word).map(|row| row.1)
    }
}
