use cchaha_gguf::{Array, Metadata, Strings, Value};

use super::*;
use crate::text::{Decoder as TokenDecoder, Special, Tokenizer};

const CONTROL: [&str; 5] =
    ["<|endoftext|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>"];

/// Every keyword, and these words as tokens of their classes: each grows from the left, byte by byte.
fn spec(shuffled: bool) -> HybridSpec {
    let mut spec = HybridSpec {
        n_control: CONTROL.len() as u32,
        keywords: HybridSpec::all_keywords(),
        shuffled,
        ..HybridSpec::default()
    };
    let words: [&[&str]; 4] = [
        &["):", " = ", "()", ", ", "    "],
        &["foo", "qux", "_baz", "name"],
        &["name"],
        &[" the", " of", " name"],
    ];
    // What is joined from two whole parts.
    let pairs = [None, Some(("foo", "_baz")), None, Some((" of", " the"))];
    for ((class, words), pair) in TokenClass::MERGING.into_iter().zip(words).zip(pairs) {
        let initial = spec.initial().expect("a sound vocabulary");
        let first = initial.starts()[class as usize + 1];
        let joins = &mut spec.joins[class as usize - 2];
        let mut ids = Vec::new();
        for word in words {
            let symbols = initial.symbols(class, word.as_bytes());
            let mut left = symbols[0];
            for &right in &symbols[1..] {
                // A beginning that an earlier word has made is there.
                let join = Join { left, right, parts: false };
                let at = joins.iter().position(|other| *other == join).unwrap_or(joins.len());
                if at == joins.len() {
                    joins.push(join);
                }
                left = first + at as u32;
            }
            ids.push((*word, left));
        }
        let id = |word| ids.iter().find(|(other, _)| *other == word).map_or(0, |&(_, id)| id);
        joins.extend(pair.map(|(left, right)| Join { left: id(left), right: id(right), parts: true }));
    }
    spec
}

fn metadata(spec: &HybridSpec) -> Metadata {
    let mut meta = Metadata::new();
    spec.write(&CONTROL, &mut meta).expect("a sound vocabulary");
    meta.set("tokenizer.ggml.eos_token_id", 0_u32);
    meta
}

fn build(spec: &HybridSpec) -> Tokenizer {
    Tokenizer::from_gguf(&metadata(spec)).expect("a sound file")
}

/// The tokens of a text as files write them.
fn texts(tokenizer: &Tokenizer, text: &str) -> String {
    let hybrid = tokenizer.hybrid().expect("a hybrid vocabulary");
    let ids = tokenizer.encode(text, Special::Plain);
    ids.iter().map(|&id| hybrid.text(id)).collect::<Vec<_>>().join("|")
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// What texts are made of that try the lexer: everything that changes its state, whole and in halves.
const FRAGMENTS: [&[u8]; 44] = [
    b"\n",
    b"\n\n",
    b"\n    ",
    b"\n\t",
    b"\n        ",
    b"\r\n",
    b"\r",
    b" ",
    b"  ",
    b"\t",
    b"\"",
    b"'",
    b"\"\"\"",
    b"'''",
    b"r#\"",
    b"\"#",
    b"#",
    b"# ",
    b"#![",
    b"//",
    b"/*",
    b"*/",
    b"/// ",
    b"```",
    b">>> ",
    b"\\",
    b"\\n",
    b"\\\n",
    b"foo",
    b"foo_baz",
    b"HTTPServer2",
    b"def ",
    b"fn ",
    b"let mut ",
    b"void ",
    b"self.",
    b"a test of the",
    b"):",
    b"{",
    b"}",
    b"12",
    "中".as_bytes(),
    b"\x00",
    b"\xFF",
];

fn random_text(random: &mut Random, fragments: usize) -> Vec<u8> {
    (0..fragments).flat_map(|_| FRAGMENTS[random.below(FRAGMENTS.len())]).copied().collect()
}

#[test]
fn spans_have_the_class_of_what_they_are() {
    let tokenizer = build(&spec(false));
    for (text, expected) in [
        // Structure, names that are one token, and a line break that goes deeper and one that comes back.
        (
            "def foo(self):\n    return foo_baz\nqux = 1\n",
            "def|Ġ|foo|(|self|):|⏎→4|return|Ġ|foo_baz|⏎←|qux|Ġ=Ġ|1|Ċ",
        ),
        // A literal that is a name, one that is not, and escapes.
        ("f(\"name\", \"name x\\n\")", "f|(|\"|name|\"|,Ġ|\"|name|Ġ|x|\\|n|\"|)"),
        // A comment: words with a space in front, and a name behind a quote.
        ("x # of the `name`\n", "x|Ġ|#|ĠofĠthe|Ġ|`|name|`|Ċ"),
    ] {
        assert_eq!(texts(&tokenizer, text), expected, "{text:?}");
    }
    let classes = |text: &str| -> Vec<TokenClass> {
        let ids = tokenizer.encode(text, Special::Plain);
        ids.iter().map(|&id| tokenizer.class(id).expect("an id of the vocabulary")).collect()
    };
    assert_eq!(classes("foo(7)"), [Identifier, Structure, Literal, Structure]);
    assert_eq!(classes("# the\r"), [Structure, Prose, Byte]);
    // A lifetime is no literal, a character is one; Rust is known by its words.
    assert_eq!(
        classes("fn foo<'a>('b')"),
        [
            Structure, Structure, Identifier, Structure, Structure, Identifier, Structure, Structure,
            Structure, Identifier, Structure, Structure
        ]
    );
    assert_eq!(tokenizer.class(0), Some(Control));
    assert_eq!(tokenizer.class(tokenizer.vocab_len() as u32), None);
}

#[test]
fn parts_are_cut_at_case_underscores_and_digits() {
    for (word, expected) in [
        ("fooBar", "foo|Bar"),
        ("foo_bar__baz_", "foo|_bar|__baz|_"),
        ("HTTPServer", "HTTP|Server"),
        ("utf8x12", "utf|8|x|1|2"),
        (" foo", " foo"),
        (" Foo", " Foo"),
        ("__init__", "__init|__"),
        ("été", "été"),
        ("a", "a"),
        ("", ""),
    ] {
        let parts: Vec<&str> = part_ranges(word.as_bytes()).map(|part| &word[part]).collect();
        assert_eq!(parts.join("|"), expected);
    }
}

#[test]
fn a_million_texts_come_back() {
    let tokenizer = build(&spec(false));
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut text = Vec::new();
    for i in 0..1_000_000 {
        text.clear();
        if i % 2 == 0 {
            let n = random.below(24);
            text.extend((0..n).map(|_| random.below(256) as u8));
        } else {
            let n = random.below(10);
            text.extend(random_text(&mut random, n));
        }
        let ids = tokenizer.encode(&text, Special::Plain);
        assert!(
            tokenizer.decode(&ids, false) == text,
            "{:?} becomes {ids:?}",
            text.escape_ascii().to_string()
        );
    }
}

#[test]
fn a_text_goes_on_wherever_it_was_cut() {
    let mut random = Random(3);
    for shuffled in [false, true] {
        let tokenizer = build(&spec(shuffled));
        for _ in 0..400 {
            let text = random_text(&mut random, 30);
            let whole = tokenizer.encode(&text, Special::Plain);
            let mut stream = tokenizer.stream(false);
            let mut streamed = String::new();
            whole.iter().for_each(|&id| streamed += stream.push(id));
            streamed += stream.finish();
            assert_eq!(streamed, String::from_utf8_lossy(&text));
            for cut in 0..=text.len() {
                let (before, after) = text.split_at(cut);
                let mut ids = tokenizer.encode(before, Special::Plain);
                let mut stream = tokenizer.stream_after(&ids, false);
                let further = tokenizer.encode_after(before, after, Special::Plain);
                let mut bytes = Vec::new();
                further.iter().for_each(|&id| bytes.extend_from_slice(stream.bytes_of(id)));
                assert!(bytes == after, "{} cut at {cut}", text.escape_ascii());
                ids.extend(further);
                assert!(tokenizer.decode(&ids, false) == text);
                assert_eq!(tokenizer.encode_cut(&text, &[cut]), ids);
            }
            // A middle comes back where its prefix ends, whatever the suffix is.
            let (a, b) = (random.below(text.len() + 1), random.below(text.len() + 1));
            let (prefix, rest) = text.split_at(a.min(b));
            let (middle, suffix) = rest.split_at(a.max(b) - a.min(b));
            let marks = tokenizer.fim();
            let mut ids: Vec<u32> = marks.prefix.into_iter().collect();
            ids.extend(tokenizer.encode(prefix, Special::Plain));
            ids.extend(marks.suffix);
            ids.extend(tokenizer.encode(suffix, Special::Plain));
            ids.extend(marks.middle);
            let mut decoder = TokenDecoder::default();
            let mut bytes = Vec::new();
            ids.iter().for_each(|&id| bytes.extend_from_slice(decoder.push(&tokenizer, id)));
            assert!(bytes == [prefix, suffix].concat());
            bytes.clear();
            let further = tokenizer.encode_after(prefix, middle, Special::Plain);
            further.iter().for_each(|&id| bytes.extend_from_slice(decoder.push(&tokenizer, id)));
            assert!(bytes == middle, "{} between {a} and {b}", text.escape_ascii());
        }
    }
}

#[test]
fn a_line_that_has_not_begun_is_left_open() {
    let tokenizer = build(&spec(false));
    for (text, expected) in
        [("if x:\n", "if|Ġ|x|:|Ċ"), ("if x:\n    ", "if|Ġ|x|:|⏎→4"), ("if x:\n  \n", "if|Ġ|x|:|Ċ|ĠĠ|Ċ")]
    {
        assert_eq!(texts(&tokenizer, text), expected, "{text:?}");
    }
}

#[test]
fn control_tokens_begin_a_new_text() {
    let tokenizer = build(&spec(false));
    let text = "if x:\n    y\n<|endoftext|>if x:\n    y<|fim_suffix|>z\n<|fim_middle|>\n    w";
    let ids = tokenizer.encode(text, Special::Parse);
    assert_eq!(tokenizer.decode(&ids, true), text.as_bytes());
    assert_eq!(ids.iter().filter(|&&id| id == 0).count(), 1);
    let plain = tokenizer.encode(text, Special::Plain);
    assert!(!plain.contains(&0));
    assert_eq!(tokenizer.decode(&plain, false), text.as_bytes());
}

/// Any tokens in any order decode, and their bytes can be encoded.
#[test]
fn any_tokens_decode() {
    let tokenizer = build(&spec(false));
    let mut random = Random(7);
    for _ in 0..20_000 {
        let n = random.below(40);
        let ids: Vec<u32> = (0..n).map(|_| random.below(tokenizer.vocab_len() + 3) as u32).collect();
        let bytes = tokenizer.decode(&ids, false);
        assert!(bytes.len() < 200 * n + 1);
        assert!(tokenizer.decode(&tokenizer.encode(&bytes, Special::Plain), false) == bytes);
    }
}

#[test]
fn long_runs_take_linear_time() {
    let tokenizer = build(&spec(false));
    for unit in
        ["a", "7", " ", "\n", "(", "\"", "'", "#", "_", "\\", "中", "\0", "A", "\n ", "a ", " of the", "/*"]
    {
        let text = unit.repeat((1 << 20) / unit.len());
        let ids = tokenizer.encode(&text, Special::Plain);
        assert!(tokenizer.decode(&ids, false) == text.as_bytes(), "{unit:?}");
        // Quadratic time would be hours for these.
        let seconds = (0..3)
            .map(|_| {
                let start = std::time::Instant::now();
                std::hint::black_box(tokenizer.encode(&text, Special::Plain));
                start.elapsed().as_secs_f64()
            })
            .fold(f64::INFINITY, f64::min);
        assert!(seconds < 1.5, "1 MB of {unit:?} took {seconds:.2} s");
    }
}

#[test]
fn the_placebo_draws_classes_by_lot() {
    let (classes, lots) = (build(&spec(false)), build(&spec(true)));
    let text: String = (0..300).map(|i| format!("word{i}x = \"text{i}y z\"  # prose{i}\n")).collect();
    let count = |tokenizer: &Tokenizer, class| {
        let ids = tokenizer.encode(&text, Special::Plain);
        assert_eq!(tokenizer.decode(&ids, false), text.as_bytes());
        ids.iter().filter(|&&id| tokenizer.class(id) == Some(class)).count()
    };
    assert_eq!(count(&classes, Structure), count(&lots, Structure));
    let three = [Identifier, Literal, Prose].map(|class| count(&lots, class));
    let sum: usize = three.iter().sum();
    assert!(three.iter().all(|&n| n * 5 > sum), "{three:?} are not thirds");
    assert_ne!(count(&classes, Prose), count(&lots, Prose));
}

#[test]
fn vocabularies_that_cannot_be_are_refused() {
    let sound = metadata(&spec(false));
    let ints = |values: Vec<i32>| Value::from(values);
    let joins = || match sound.get("cchaha.tokenizer.joins") {
        Some(Value::Array(Array::I32(joins))) => joins.clone(),
        other => panic!("{other:?}"),
    };
    let with = |at: usize, value: i32| {
        let mut joins = joins();
        joins[at] = value;
        joins
    };
    let words = |word: &str| -> Value { [word].iter().collect::<Strings>().into() };
    let renamed: Strings = match sound.get("tokenizer.ggml.tokens") {
        Some(Value::Array(Array::Strings(tokens))) => {
            (0..tokens.len()).filter_map(|i| if i == 300 { Some(&b"x"[..]) } else { tokens.get(i) }).collect()
        }
        other => panic!("{other:?}"),
    };
    for (key, value, expected) in [
        ("cchaha.tokenizer.version", 2_u32.into(), "has version 2"),
        ("cchaha.tokenizer.n_control", 4_u32.into(), "which is none of that class"),
        ("cchaha.tokenizer.n_control", u32::MAX.into(), "holds more than"),
        ("cchaha.tokenizer.keywords", words(""), "is no word"),
        ("cchaha.tokenizer.keywords", words("9a"), "is no word"),
        ("cchaha.tokenizer.keywords", words("a b"), "is no word"),
        ("cchaha.tokenizer.keywords", words(&"a".repeat(40)), "is no word"),
        ("cchaha.tokenizer.n_joins", ints(vec![1, 2, 3]), "expected three for each"),
        ("cchaha.tokenizer.n_joins", ints(vec![-1, 0, 0, 0]), "expected three for each"),
        ("cchaha.tokenizer.n_joins", ints(vec![0, 0, 0, (joins().len() / 3) as i32]), "none of that class"),
        ("cchaha.tokenizer.joins", ints(joins()[..7].to_vec()), "expected three for each"),
        ("cchaha.tokenizer.joins", ints(with(0, -1)), "joins token 4294967295"),
        // A structure token out of a byte could forge a line break.
        ("cchaha.tokenizer.joins", ints(with(0, 6)), "joins token 6, which is none of that class"),
        ("cchaha.tokenizer.joins", ints(with(1, i32::MAX)), "which is none of that class"),
        ("cchaha.tokenizer.joins", Value::from("x"), "cchaha.tokenizer.joins"),
        ("tokenizer.ggml.tokens", renamed.into(), "makes token 300"),
    ] {
        let mut meta = sound.clone();
        meta.set(key, value);
        let error = Tokenizer::from_gguf(&meta).err().map_or_else(String::new, |error| error.to_string());
        assert!(error.contains(expected), "{key}: {error:?}");
    }
    let mut meta = Metadata::new();
    meta.set("tokenizer.ggml.model", "cchaha");
    meta.set("tokenizer.ggml.tokens", ["a"].iter().collect::<Strings>());
    let error = Tokenizer::from_gguf(&meta).expect_err("nothing there").to_string();
    assert!(error.contains("cchaha.tokenizer.version"), "{error}");

    // Doubling tokens cannot grow without bound.
    let mut doubling = HybridSpec { n_control: 1, ..HybridSpec::default() };
    let symbol = doubling.initial().expect("a sound vocabulary");
    let (mut last, mut next) = (symbol.symbols(Prose, b"a")[0], symbol.starts()[6]);
    for _ in 0..60 {
        doubling.joins[3].push(Join { left: last, right: last, parts: false });
        (last, next) = (next, next + 1);
    }
    let error = doubling.initial().err().map_or_else(String::new, |error| error.to_string());
    assert!(error.contains("more than 64 bytes"), "{error}");
}
