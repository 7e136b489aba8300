//! Python 3.

use super::{BareFunctions, Grammar, Language, Layout, Lexis, LineEnds, NO_LEXIS, Word};

pub(super) const LANGUAGE: Language = Language {
    name: "python",
    extensions: &["py", "pyi", "pyw"],
    layout: Layout::Colon,
    lexis: Lexis { hash_comments: true, quotes: b"\"'", triple: b"\"'", ..NO_LEXIS },
    words: &[
        ("import", Word::Import),
        ("from", Word::Import),
        ("def", Word::Function),
        ("class", Word::Class),
        ("async", Word::Continues),
        ("if", Word::Control),
        ("elif", Word::Control),
        ("else", Word::Control),
        ("for", Word::Control),
        ("while", Word::Control),
        ("with", Word::Control),
        ("try", Word::Control),
        ("except", Word::Control),
        ("finally", Word::Control),
    ],
    bare_functions: BareFunctions::Nowhere,
    line_ends: LineEnds::Nothing,
    arrows: false,
    macro_calls: false,
    grammar: Some(Grammar {
        language: || tree_sitter_python::LANGUAGE.into(),
        scopes: &["function_definition", "class_definition"],
        wrappers: &["decorated_definition"],
        attributes: &[],
        imports: &["import_statement", "import_from_statement", "future_import_statement"],
    }),
};
