//! Rust.

use super::{BareFunctions, Grammar, Language, Layout, Lexis, LineEnds, NO_LEXIS, Word};

pub(super) const LANGUAGE: Language = Language {
    name: "rust",
    extensions: &["rs"],
    layout: Layout::Braces,
    lexis: Lexis {
        slash_comments: true,
        nested_comments: true,
        quotes: b"\"",
        multiline: true,
        raw_hashes: true,
        lifetimes: true,
        ..NO_LEXIS
    },
    words: &[
        ("use", Word::Import),
        ("fn", Word::Function),
        ("struct", Word::Class),
        ("enum", Word::Class),
        ("trait", Word::Class),
        ("impl", Word::Class),
        ("mod", Word::Class),
        ("union", Word::Contextual),
        ("macro_rules", Word::Macro),
        ("for", Word::For),
        ("if", Word::Control),
        ("else", Word::Control),
        ("while", Word::Control),
        ("loop", Word::Control),
        ("match", Word::Control),
        ("return", Word::Operator),
        ("in", Word::Operator),
        ("crate", Word::Import),
    ],
    bare_functions: BareFunctions::Nowhere,
    line_ends: LineEnds::Nothing,
    arrows: false,
    macro_calls: true,
    grammar: Some(Grammar {
        language: || tree_sitter_rust::LANGUAGE.into(),
        scopes: &[
            "function_item",
            "struct_item",
            "enum_item",
            "union_item",
            "trait_item",
            "impl_item",
            "mod_item",
            "macro_definition",
        ],
        wrappers: &[],
        attributes: &["attribute_item"],
        imports: &["use_declaration", "extern_crate_declaration"],
    }),
};
