//! Tests of `fim`.

use super::*;

/// Text is one token per character (its code point), with SentencePiece's space before it on request; marks are
/// numbered from 2,000,000.
fn run(marks: &[&str], space: bool, prefix: &str, suffix: &str) -> Result<FimPrompt, FimError> {
    let encode = |text: &str| {
        let space = if space && !text.is_empty() { " " } else { "" };
        format!("{space}{text}").chars().map(u32::from).collect()
    };
    let id_of = |text: &str| marks.iter().position(|mark| *mark == text).map(|i| 2_000_000 + i as u32);
    assemble(
        &FimVocab { encode: &encode, id_of: &id_of, bos: None, declared: [None; 3] },
        None,
        prefix,
        suffix,
    )
}

/// The prompt as text.
fn shown(marks: &[&str], space: bool) -> (&'static str, String) {
    let prompt = run(marks, space, "ab", "cd").expect("all marks present");
    let text = prompt.tokens.iter().map(|&id| match marks.get((id as usize).wrapping_sub(2_000_000)) {
        Some(mark) => (*mark).to_owned(),
        None => char::from_u32(id).expect("a character").to_string(),
    });
    (prompt.family, text.collect())
}

#[test]
fn published_formats() {
    for (marks, space, expected) in [
        (
            ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"].as_slice(),
            false,
            ("qwen", "<|fim_prefix|>ab<|fim_suffix|>cd<|fim_middle|>"),
        ),
        (
            &["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
            false,
            ("starcoder", "<fim_prefix>ab<fim_suffix>cd<fim_middle>"),
        ),
        (
            &["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
            false,
            ("deepseek", "<｜fim▁begin｜>ab<｜fim▁hole｜>cd<｜fim▁end｜>"),
        ),
        (&["▁<PRE>", "▁<SUF>", "▁<MID>"], true, ("codellama", "▁<PRE> ab▁<SUF>cd▁<MID>")),
        (&["[PREFIX]", "[SUFFIX]"], true, ("codestral", "[SUFFIX]cd[PREFIX] ab")),
    ] {
        assert_eq!(shown(marks, space), (expected.0, expected.1.to_owned()));
    }
}

#[test]
fn marks_and_their_like_end_the_answer() {
    let marks = ["<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<|endoftext|>", "unrelated", "<file_sep>"];
    let prompt = run(&marks, false, "", "").expect("all marks present");
    assert_eq!(prompt.ends, [0, 1, 2, 3, 5].map(|i| 2_000_000 + i));
    assert_eq!(prompt.tokens, [0, 1, 2].map(|i| 2_000_000 + i), "empty texts leave the marks alone");
}

#[test]
fn a_missing_mark_is_named() {
    for (marks, named) in [
        (["<fim_prefix>", "<fim_suffix>"].as_slice(), "<fim_middle>"),
        (&["<｜fim▁begin｜>", "<｜fim▁end｜>"], "<｜fim▁hole｜>"),
        (&["[SUFFIX]"], "[PREFIX]"),
        (&[], "<|fim_prefix|>"),
    ] {
        let error = run(marks, false, "a", "b").expect_err("a mark is missing");
        assert!(matches!(error, FimError::MissingToken { token, .. } if token == named), "{error}");
        assert!(error.to_string().contains(named));
    }
}

#[test]
fn declared_ids_serve_when_no_name_is_known() {
    let with = |declared| {
        let encode = |text: &str| text.chars().map(u32::from).collect();
        assemble(&FimVocab { encode: &encode, id_of: &|_| None, bos: Some(1), declared }, None, "a", "b")
    };
    let prompt = with([Some(7), Some(8), Some(9)]).expect("all declared");
    assert_eq!(prompt.tokens, [1, 7, u32::from('a'), 8, u32::from('b'), 9]);
    assert_eq!(prompt.ends, [7, 8, 9]);
    let error = with([Some(7), None, Some(9)]).expect_err("one is missing");
    assert!(error.to_string().contains("tokenizer.ggml.fim_suf_token_id"), "{error}");
}

#[test]
fn places_in_a_file() {
    let source = "fn é() {\r\n    x🦀y\n\n";
    assert_eq!(split_at(source, 1, 1), Ok(("", source)));
    assert_eq!(split_at(source, 1, 5), Ok(("fn é", "() {\r\n    x🦀y\n\n")));
    assert_eq!(split_at(source, 1, 9), Ok(("fn é() {", "\r\n    x🦀y\n\n")));
    assert_eq!(split_at(source, 2, 7), Ok(("fn é() {\r\n    x🦀", "y\n\n")));
    assert_eq!(split_at(source, 3, 1), Ok(("fn é() {\r\n    x🦀y\n", "\n")));
    assert_eq!(split_at(source, 4, 1), Ok((source, "")), "behind the last line end");
    assert_eq!(split_at("", 1, 1), Ok(("", "")));
    assert_eq!(split_at("a\r", 1, 3), Ok(("a\r", "")), "a lone carriage return is a character");
    assert_eq!(split_at(source, 1, 10), Err(FimError::ColumnBeyondEnd { line: 1, column: 10, columns: 9 }));
    assert_eq!(split_at(source, 5, 1), Err(FimError::LineBeyondEnd { line: 5, lines: 4 }));
    assert_eq!(split_at(source, 0, 1), Err(FimError::Zero { line: 0, column: 1 }));
    assert_eq!(split_at(source, 1, 0), Err(FimError::Zero { line: 1, column: 0 }));
}

#[test]
fn every_place_splits_without_loss() {
    let source = "a\n\nbé\r\n🦀";
    for line in 1..=5 {
        for column in 1..=5 {
            if let Ok((prefix, suffix)) = split_at(source, line, column) {
                assert_eq!(format!("{prefix}{suffix}"), source);
                assert_eq!(prefix.matches('\n').count(), line - 1);
            }
        }
    }
}
