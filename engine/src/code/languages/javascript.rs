//! JavaScript.

use super::{BareFunctions, Grammar, Language, Layout, Lexis, LineEnds, NO_LEXIS, Word};

pub(super) const LEXIS: Lexis =
    Lexis { slash_comments: true, quotes: b"\"'", template: true, regex: true, ..NO_LEXIS };

pub(super) const LANGUAGE: Language = Language {
    name: "javascript",
    extensions: &["js", "jsx", "mjs", "cjs"],
    layout: Layout::Braces,
    lexis: LEXIS,
    words: &[
        ("import", Word::Import),
        ("function", Word::Function),
        ("class", Word::Class),
        ("if", Word::Control),
        ("else", Word::Control),
        ("for", Word::Control),
        ("while", Word::Control),
        ("do", Word::Control),
        ("switch", Word::Control),
        ("case", Word::Control),
        ("default", Word::Continues),
        ("try", Word::Control),
        ("catch", Word::Control),
        ("finally", Word::Control),
        ("with", Word::Control),
        ("new", Word::New),
        ("return", Word::Operator),
        ("typeof", Word::Operator),
        ("void", Word::Operator),
        ("delete", Word::Operator),
        ("in", Word::Operator),
        ("of", Word::Operator),
        ("instanceof", Word::Operator),
        ("await", Word::Operator),
        ("yield", Word::Operator),
        ("throw", Word::Operator),
        ("extends", Word::Continues),
        ("export", Word::Continues),
    ],
    bare_functions: BareFunctions::ClassesAndLiterals,
    line_ends: LineEnds::BetweenValues,
    arrows: true,
    macro_calls: false,
    grammar: Some(Grammar {
        language: || tree_sitter_javascript::LANGUAGE.into(),
        scopes: SCOPES,
        wrappers: &["export_statement"],
        attributes: &[],
        imports: &["import_statement"],
    }),
};

pub(super) const SCOPES: &[&str] = &[
    "function_declaration",
    "function_expression",
    "generator_function",
    "generator_function_declaration",
    "arrow_function",
    "method_definition",
    "class_declaration",
    "class",
];
