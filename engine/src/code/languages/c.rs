//! C.

use super::{BareFunctions, Grammar, Language, Layout, Lexis, LineEnds, NO_LEXIS, Word};

pub(super) const LANGUAGE: Language = Language {
    name: "c",
    extensions: &["c", "h"],
    signs: &[
        "#include", "#define", "#if", "#endif", "static ", "int ", "void ", "char ", "struct ", "typedef ",
        "return ", "goto ", "size_t ", "if (", "for (",
    ],
    layout: Layout::Braces,
    lexis: Lexis { slash_comments: true, quotes: b"\"'", preprocessor: true, ..NO_LEXIS },
    words: &[
        ("include", Word::Import),
        ("struct", Word::Class),
        ("union", Word::Class),
        ("enum", Word::Class),
        ("if", Word::Control),
        ("else", Word::Control),
        ("for", Word::Control),
        ("while", Word::Control),
        ("do", Word::Control),
        ("switch", Word::Control),
        ("case", Word::Control),
        ("return", Word::Operator),
        ("sizeof", Word::Operator),
        ("__attribute__", Word::Attribute),
        ("__declspec", Word::Attribute),
        ("_Alignas", Word::Attribute),
        ("__asm__", Word::Attribute),
        ("typeof", Word::Attribute),
        ("__typeof__", Word::Attribute),
    ],
    bare_functions: BareFunctions::OutsideFunctions,
    line_ends: LineEnds::Nothing,
    arrows: false,
    macro_calls: false,
    grammar: Some(Grammar {
        language: || tree_sitter_c::LANGUAGE.into(),
        scopes: &["function_definition", "struct_specifier", "union_specifier", "enum_specifier"],
        wrappers: &["type_definition", "declaration"],
        attributes: &[],
        imports: &["preproc_include"],
    }),
};
