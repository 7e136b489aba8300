use cchaha_gguf::{Metadata, Strings, Value};

use super::*;

/// All 256 bytes in GPT-2's alphabet (in no special order), some words, and the merges that make them.
fn bpe() -> VocabSpec {
    let printable = |byte: u8| match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        0x00..=0x20 => char::from_u32(0x100 + u32::from(byte)).expect("no surrogates here"),
        0x7F..=0xA0 => char::from_u32(0x121 + u32::from(byte) - 0x7F).expect("no surrogates here"),
        0xAD => '\u{143}',
    };
    let bytes = (0..=255).map(|byte| printable(byte).to_string());
    let words = ["ab", "abc", "Ġab", "bc", "<|im_end|>", "<tool>", "<|fim_prefix|>"].map(str::to_owned);
    let mut spec = VocabSpec::new(VocabModel::Bpe, bytes.chain(words).collect());
    spec.types = Some([vec![1; 260], vec![3, 4, 4]].concat());
    spec.merges = ["b c", "a b", "Ġ ab", "ab c"].iter().collect();
    spec.pre = "qwen2".to_owned();
    spec
}

fn spm() -> VocabSpec {
    let words = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)];
    let bytes = (0..=255).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6));
    let text = [
        ("▁", -10.0, 1),
        ("a", -11.0, 1),
        ("b", -12.0, 1),
        ("▁a", -2.0, 1),
        ("ab", -1.0, 1),
        ("▁ab", -3.0, 1),
        ("[x]", 0.0, 4),
        ("中", -9.0, 1),
    ];
    let own = |(text, score, kind): (&str, f32, i32)| (text.to_owned(), score, kind);
    let all: Vec<_> = words.map(own).into_iter().chain(bytes).chain(text.map(own)).collect();
    let mut spec = VocabSpec::new(VocabModel::Spm, all.iter().map(|(text, ..)| text).collect());
    spec.scores = Some(all.iter().map(|&(_, score, _)| score).collect());
    spec.types = Some(all.iter().map(|&(.., kind)| kind).collect());
    (spec.bos, spec.eos, spec.unk, spec.add_bos) = (Some(1), Some(2), Some(0), true);
    spec
}

fn build(spec: VocabSpec) -> Tokenizer {
    Tokenizer::new(spec).expect("a sound vocabulary")
}

fn pieces(tokenizer: &Tokenizer, text: &str, special: Special) -> Vec<String> {
    let ids = tokenizer.encode(text, special);
    ids.iter().map(|&id| String::from_utf8_lossy(tokenizer.piece(id, true)).into_owned()).collect()
}

#[test]
fn bpe_merges_by_rank() {
    let tokenizer = build(bpe());
    // "b c" has the lowest rank, so "abc" never comes about, but where the rule has words go first.
    assert_eq!(pieces(&tokenizer, "abc ab", Special::Plain), ["a", "bc", " ab"]);
    let llama = build(VocabSpec { pre: "llama-bpe".to_owned(), ..bpe() });
    assert_eq!(pieces(&llama, "abc ab", Special::Plain), ["abc", " ab"]);
}

#[test]
fn spm_merges_by_score() {
    let tokenizer = build(spm());
    assert_eq!(pieces(&tokenizer, "ab", Special::Plain), [" ab"]);
    assert_eq!(pieces(&tokenizer, "a ba", Special::Plain), [" a", " ", "b", "a"]);
    assert_eq!(tokenizer.encode("é", Special::Plain), [259, 3 + 0xC3, 3 + 0xA9]);
    assert_eq!(tokenizer.encode_prompt("a", Special::Plain), [1, 262]);
    assert_eq!(tokenizer.encode_prompt("", Special::Plain), [1]);
    let bare = build(VocabSpec { add_space_prefix: false, ..spm() });
    assert_eq!(pieces(&bare, "ab a", Special::Plain), ["ab", " a"]);
    let trimmed = build(VocabSpec { remove_extra_whitespaces: true, ..spm() });
    assert_eq!(pieces(&trimmed, "  ab   a ", Special::Plain), [" ab", " a"]);
}

#[test]
fn special_tokens_where_asked_for() {
    let tokenizer = build(bpe());
    let text = "ab<|im_end|><tool>";
    let parsed = pieces(&tokenizer, text, Special::Parse);
    assert_eq!(parsed, ["ab", "<|im_end|>", "<tool>"]);
    let plain = pieces(&tokenizer, text, Special::Plain);
    assert!(!plain.contains(&"<|im_end|>".to_owned()) && plain.contains(&"<tool>".to_owned()), "{plain:?}");

    let ids = tokenizer.encode(text, Special::Parse);
    assert_eq!(tokenizer.decode(&ids, true), text.as_bytes());
    assert_eq!(tokenizer.decode(&ids, false), b"ab<tool>");

    // SentencePiece has a space after a control token, none after a user-defined one, and both come back.
    let tokenizer = build(spm());
    let text = "a</s>ab[x]ab";
    assert_eq!(pieces(&tokenizer, text, Special::Parse), [" a", "</s>", " ab", "[x]", "ab"]);
    assert_eq!(tokenizer.decode(&tokenizer.encode(text, Special::Parse), true), text.as_bytes());
    assert_eq!(tokenizer.decode(&tokenizer.encode(text, Special::Plain), true), text.as_bytes());
}

#[test]
fn roles_by_name_and_by_id() {
    let tokenizer = build(bpe());
    assert_eq!(tokenizer.eog_ids(), [260]);
    assert!(tokenizer.is_eog(260) && !tokenizer.is_eog(0) && !tokenizer.is_eog(u32::MAX));
    // User-defined in the file, but its name says what it is.
    assert_eq!(tokenizer.fim().prefix, Some(262));
    assert!(tokenizer.is_control(262));
    let tokenizer = build(VocabSpec {
        eos: Some(5),
        fim: FimTokens { prefix: Some(7), ..FimTokens::default() },
        ..bpe()
    });
    assert_eq!(tokenizer.eog_ids(), [5, 260]);
    assert_eq!(tokenizer.fim().prefix, Some(7));
}

#[test]
fn streams_keep_characters_whole() {
    let tokenizer = build(bpe());
    let ids = tokenizer.encode("é中a", Special::Plain);
    assert_eq!(ids.len(), 6);
    let mut stream = tokenizer.stream(false);
    let texts: Vec<String> = ids.iter().map(|&id| stream.push(id).to_owned()).collect();
    assert_eq!(texts, ["", "é", "", "", "中", "a"]);
    assert_eq!(stream.finish(), "");

    // A letter ends a character that never got its last byte; so does the end.
    assert_eq!((stream.push(0xE4).to_owned(), stream.push(u32::from(b'x'))), (String::new(), "\u{FFFD}x"));
    assert_eq!(stream.push(0xFF), "\u{FFFD}");
    stream.push(0xE4);
    assert_eq!((stream.finish().to_owned(), stream.finish()), ("\u{FFFD}".to_owned(), ""));
    assert_eq!(stream.push(u32::MAX), "");
}

#[test]
fn streams_know_where_a_text_starts() {
    let tokenizer = build(spm());
    let ids = tokenizer.encode("ab", Special::Plain);
    assert_eq!(tokenizer.stream(false).push(ids[0]), " ab");
    assert_eq!(tokenizer.stream_from_start(false).push(ids[0]), "ab");
}

#[test]
fn any_byte_comes_back() {
    for tokenizer in [build(bpe()), build(spm())] {
        for a in 0..=255 {
            for b in [0, b' ', b'a', 0x80, 0xE4, 0xFF] {
                let text = [a, b, a];
                assert_eq!(tokenizer.decode(&tokenizer.encode(text, Special::Plain), false), text);
            }
        }
    }
}

#[test]
fn unsound_vocabularies_are_refused() {
    let error = |spec: VocabSpec| Tokenizer::new(spec).expect_err("an unsound vocabulary").to_string();
    let unknown = error(VocabSpec { pre: "tekken".to_owned(), ..bpe() });
    assert!(unknown.contains("\"tekken\"") && unknown.contains("deepseek-llm"), "{unknown}");
    for (spec, expected) in [
        (VocabSpec { tokens: Pieces::default(), ..bpe() }, "has 0 entries"),
        (VocabSpec { types: Some(vec![1]), ..bpe() }, "token_type has 1 entries"),
        (VocabSpec { merges: ["a b", "ab"].iter().collect(), ..bpe() }, "entry 1, \"ab\", has no space"),
        (VocabSpec { merges: ["xy b"].iter().collect(), ..bpe() }, "begins with what is no token"),
        (VocabSpec { merges: ["a xy"].iter().collect(), ..bpe() }, "ends with what is no token"),
        (VocabSpec { merges: ["b a"].iter().collect(), ..bpe() }, "makes what is no token"),
        (VocabSpec { scores: None, ..spm() }, "scores is missing"),
        (VocabSpec { scores: Some(vec![0.0]), ..spm() }, "scores has 1 entries"),
        (VocabSpec { scores: Some(vec![f32::NAN; 267]), ..spm() }, "entry 0 is not a number"),
        (VocabSpec { types: Some(vec![3; 267]), unk: None, ..spm() }, "no token <0x00>"),
    ] {
        let error = error(spec);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn gguf_keys_are_read() {
    let mut meta = Metadata::new();
    let spec = spm();
    meta.set("tokenizer.ggml.model", "llama");
    meta.set("tokenizer.ggml.tokens", spec.tokens.iter().collect::<Strings>());
    meta.set("tokenizer.ggml.scores", spec.scores.unwrap_or_default());
    meta.set("tokenizer.ggml.token_type", spec.types.unwrap_or_default());
    let tokenizer = Tokenizer::from_gguf(&meta).expect("a sound file");
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.unk()), (Some(1), Some(2), Some(0)));
    assert!(tokenizer.add_bos() && !tokenizer.add_eos() && tokenizer.add_space_prefix());

    meta.set("tokenizer.ggml.add_bos_token", false);
    meta.set("tokenizer.ggml.add_eos_token", true);
    meta.set("tokenizer.ggml.add_space_prefix", false);
    meta.set("tokenizer.ggml.eos_token_id", 1_u32);
    meta.set("tokenizer.ggml.suffix_token_id", 5_u32);
    let tokenizer = Tokenizer::from_gguf(&meta).expect("a sound file");
    assert_eq!(tokenizer.encode_prompt("ab", Special::Plain), [263, 1]);
    assert!(!tokenizer.add_space_prefix());
    assert_eq!(tokenizer.fim().suffix, Some(5));
    // The newer key goes first.
    meta.set("tokenizer.ggml.fim_suf_token_id", 6_u32);
    assert_eq!(Tokenizer::from_gguf(&meta).expect("a sound file").fim().suffix, Some(6));
}

#[test]
fn gguf_keys_are_checked() {
    let mut meta = Metadata::new();
    let mut error_after = |key: &str, value: Value| {
        meta.set(key, value);
        Tokenizer::from_gguf(&meta).err().map_or_else(String::new, |error| error.to_string())
    };
    let tokens = bpe().tokens;
    let strings = |pieces: &Pieces| Value::from(pieces.iter().collect::<Strings>());
    for (key, value, expected) in [
        ("tokenizer.ggml.bos_token_id", 263_u32.into(), "key \"tokenizer.ggml.model\" is missing"),
        ("tokenizer.ggml.model", "rwkv".into(), "tokenizer.ggml.model is \"rwkv\""),
        ("tokenizer.ggml.model", "gpt2".into(), "key \"tokenizer.ggml.tokens\" is missing"),
        ("tokenizer.ggml.tokens", 1_u32.into(), "tokenizer.ggml.tokens"),
        ("tokenizer.ggml.tokens", strings(&tokens), "key \"tokenizer.ggml.merges\" is missing"),
        (
            "tokenizer.ggml.merges",
            strings(&bpe().merges),
            "bos_token_id is 263, but the vocabulary ends at 262",
        ),
        ("tokenizer.ggml.bos_token_id", 262_u32.into(), ""),
        ("tokenizer.ggml.pre", "glm4".into(), "tokenizer.ggml.pre is \"glm4\", supported are default, gpt-2"),
        ("tokenizer.ggml.pre", "refact".into(), ""),
        ("tokenizer.ggml.token_type", vec![1_i32].into(), "token_type has 1 entries"),
    ] {
        let error = error_after(key, value);
        assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{key}: {error}");
    }
}
