//! Go.

use super::{BareFunctions, Grammar, Language, Layout, Lexis, LineEnds, NO_LEXIS, Word};

pub(super) const LANGUAGE: Language = Language {
    name: "go",
    extensions: &["go"],
    signs: &[
        "package ",
        "func ",
        "import (",
        "type ",
        "defer ",
        "if err",
        "var ",
        "return nil",
        "return err",
        "case ",
    ],
    layout: Layout::Braces,
    lexis: Lexis { slash_comments: true, quotes: b"\"'", raw_backtick: true, ..NO_LEXIS },
    words: &[
        ("import", Word::Import),
        ("package", Word::Import),
        ("func", Word::Function),
        ("type", Word::Type),
        ("struct", Word::Shape),
        ("interface", Word::Shape),
        ("if", Word::Control),
        ("else", Word::Control),
        ("for", Word::Control),
        ("switch", Word::Control),
        ("select", Word::Control),
        ("case", Word::Control),
        ("return", Word::Operator),
        ("range", Word::Operator),
    ],
    bare_functions: BareFunctions::Nowhere,
    line_ends: LineEnds::AfterValue,
    arrows: false,
    macro_calls: false,
    grammar: Some(Grammar {
        language: || tree_sitter_go::LANGUAGE.into(),
        scopes: &["function_declaration", "method_declaration", "func_literal", "type_spec"],
        wrappers: &["type_declaration"],
        attributes: &[],
        imports: &["import_declaration", "package_clause"],
    }),
};
