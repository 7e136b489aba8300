//! The causal scanner against tree-sitter on real files, and against itself: byte by byte, on random bytes, in time.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cchaha::code::{
    Kind, LANGUAGES, Language, MARKDOWN, PLAIN, Scanner, Structure, Syntax, UNKNOWN, exact, parsed,
};

/// Real source files by language; `tests/fetch.py` puts them there.
fn corpus(language: &Language) -> Vec<(PathBuf, Vec<u8>)> {
    let root = std::env::var_os("CCHAHA_TEST_DATA").expect("tests/run.sh sets CCHAHA_TEST_DATA");
    let mut found = Vec::new();
    let mut folders = vec![Path::new(&root).join("code").join(language.name)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

/// JavaScript is TypeScript too, and C is C++: those pairs may be taken for each other.
#[test]
fn languages_are_guessed_from_texts() {
    const KIN: [[&str; 2]; 2] = [["javascript", "typescript"], ["c", "cpp"]];
    let kin = |a: &str, b: &str| a == b || KIN.iter().any(|pair| pair.contains(&a) && pair.contains(&b));
    for language in LANGUAGES {
        let files = corpus(language);
        let guessed = |text: &[u8]| Language::guess(&String::from_utf8_lossy(text)).name;
        let right = files.iter().filter(|(_, text)| guessed(text) == language.name).count();
        let near = files.iter().filter(|(_, text)| kin(guessed(text), language.name)).count();
        eprintln!("{:10} {right} of {} guessed, {near} with its kin", language.name, files.len());
        assert!(near * 10 >= files.len() * 9, "{}: {near} of {}", language.name, files.len());
    }
    assert_eq!(Language::guess("").name, PLAIN.name);
    assert_eq!(Language::guess("Once upon a time\nthere was a model.\n").name, PLAIN.name);
    assert_eq!(Language::guess("def fibonacci(n):").name, "python");
    assert_eq!(Language::guess("fn main() {").name, "rust");
}

/// What is forbidden never stands in a real file; branches of a preprocessor may open one block twice.
#[test]
fn the_syntax_forbids_nothing_that_is_right() {
    for language in LANGUAGES {
        let files = corpus(language);
        let right = |text: &[u8]| {
            let syntax = Syntax::new(language).expect("a programming language");
            syntax.allows(text, true) && Syntax::after(language, text).is_some_and(|syntax| syntax.may_end())
        };
        let wrong: Vec<_> = files.iter().filter(|(_, text)| !right(text)).map(|(path, _)| path).collect();
        eprintln!("{:10} {} of {} files", language.name, files.len() - wrong.len(), files.len());
        let most = if matches!(language.name, "c" | "cpp") { files.len() / 50 } else { 0 };
        assert!(wrong.len() <= most, "{wrong:?}");
    }
}

#[test]
fn headers_and_depths_are_those_of_the_parse_tree() {
    for language in LANGUAGES {
        let (mut lines, mut differ) = (0, 0);
        let mut worst = Vec::new();
        for (path, text) in corpus(language) {
            let scanned = Structure::scan(language, &text);
            let parsed = parsed(language, &text, Duration::from_secs(20)).expect("there is a grammar");
            assert_eq!(scanned.lines.len(), parsed.lines.len());
            let mut here = 0;
            for (i, (a, b)) in scanned.lines.iter().zip(&parsed.lines).enumerate() {
                // Comments and blank lines have no place in the tree.
                if matches!(a.kind, Kind::Comment | Kind::Blank) {
                    continue;
                }
                lines += 1;
                let header = |kind| kind == Kind::Header;
                if a.depth != b.depth || header(a.kind) != header(b.kind) {
                    if std::env::var_os("CCHAHA_SHOW_DIFFERENCES").is_some() && here < 8 {
                        let text = String::from_utf8_lossy(&text);
                        let text = text.lines().nth(i).unwrap_or_default().to_owned();
                        eprintln!(
                            "{}:{}: {} {} / {} {}: {text}",
                            path.display(),
                            i + 1,
                            a.kind.name(),
                            a.depth,
                            b.kind.name(),
                            b.depth
                        );
                    }
                    here += 1;
                }
            }
            differ += here;
            worst.push((here, path));
        }
        let agree = 100.0 * (lines - differ) as f64 / lines as f64;
        worst.sort();
        let worst: Vec<_> =
            worst.iter().rev().take(4).map(|(n, path)| format!("{n} in {}", path.display())).collect();
        eprintln!("{:10} {lines:7} lines, {agree:.2}% agree ({})", language.name, worst.join(", "));
        assert!(lines > 2000, "{}: only {lines} lines of real code", language.name);
        assert!(agree >= 98.0, "{}: {agree:.2}% of {lines} lines agree", language.name);
    }
}

/// The parser loses its way in a text that is not finished; the scanner does not.
#[test]
fn unfinished_files_have_the_scopes_they_begin_with() {
    for language in LANGUAGES {
        let (mut lines, mut differ) = (0_usize, 0_usize);
        for (_, text) in corpus(language).iter().take(40) {
            let text = &text[..text.len() * 3 / 5];
            let scanned = Structure::scan(language, text);
            let parsed = exact(language, text, Duration::from_secs(20)).expect("there is a grammar");
            let code = |line: &Kind| !matches!(line, Kind::Comment | Kind::Blank);
            let both = scanned.lines.iter().zip(&parsed.lines).filter(|(line, _)| code(&line.kind));
            for (a, b) in both {
                lines += 1;
                differ += usize::from(a.depth != b.depth);
                // As deep as its scopes are many.
                let names = std::iter::successors(b.scope, |id| parsed.scopes[id.0 as usize].parent);
                differ += usize::from(names.count() != b.depth as usize);
            }
        }
        let agree = 100.0 * (lines - differ) as f64 / lines as f64;
        eprintln!("{:10} {lines:7} lines, {agree:.2}% agree", language.name);
        assert!(agree >= 98.0, "{}: {agree:.2}% of {lines} lines agree", language.name);
    }
}

/// A stream of pseudo-random numbers (xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn languages() -> impl Iterator<Item = &'static Language> {
    LANGUAGES.into_iter().chain([&PLAIN, &MARKDOWN, &UNKNOWN])
}

/// Text of the language: real files of those that have some, and between fences for Markdown.
fn text(language: &Language) -> Vec<u8> {
    let whole = |language| corpus(language).into_iter().flat_map(|(_, text)| text);
    match language.name {
        "unknown" => LANGUAGES.into_iter().flat_map(|language| whole(language).take(200_000)).collect(),
        "plain" => b"some words:\n  and more (of\nthem)\n".repeat(10_000),
        "markdown" => {
            let mut text = Vec::new();
            for language in LANGUAGES {
                text.extend(format!("In {}:\n```{}\n", language.name, language.name).bytes());
                text.extend(whole(language).take(2000));
                text.extend(b"\n```\n");
            }
            text.repeat(20)
        }
        _ => whole(language).collect(),
    }
}

#[test]
fn what_is_said_of_a_byte_depends_on_earlier_bytes_only() {
    for language in languages() {
        let text = text(language);
        let text = &text[..text.len().min(20_000)];
        let mut whole = Scanner::new(language);
        whole.feed(text);
        let mut forked: Option<Scanner> = None;
        let mut bytes = Scanner::new(language);
        let mut last = 0;
        for (i, &byte) in text.iter().enumerate() {
            if i == text.len() / 2 {
                forked = Some(bytes.clone());
            }
            bytes.push(byte);
            assert!(bytes.position() >= last, "scope positions never decrease");
            last = bytes.position();
            if i % 997 == 0 {
                // What follows changes nothing of what has been said.
                let mut prefix = Scanner::new(language);
                prefix.feed(&text[..=i]);
                assert_eq!(prefix.position(), bytes.position());
                assert_eq!(prefix.open_scopes(), bytes.open_scopes());
                assert_eq!(prefix.lines(), bytes.lines());
                for (early, late) in prefix.lines().iter().zip(whole.lines()) {
                    assert_eq!((early.depth, early.scope), (late.depth, late.scope), "{}", language.name);
                }
            }
        }
        let mut forked = forked.unwrap();
        forked.feed(&text[text.len() / 2..]);
        for scanner in [&bytes, &forked] {
            assert_eq!(scanner.lines(), whole.lines());
            assert_eq!(scanner.scopes(), whole.scopes());
            assert_eq!(scanner.position(), whole.position());
            assert_eq!(scanner.last_line(), whole.last_line());
        }
    }
}

#[test]
fn random_and_mutated_bytes_are_read_without_panic() {
    let signs = b"{}()[]<>;:,.=\"'`/*#@!\\\n\n  \tabfr0_$";
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for language in languages() {
        let mut text: Vec<u8> = (0..600_000).map(|_| random.next() as u8).collect();
        text.extend((0..600_000).map(|_| signs[random.next() as usize % signs.len()]));
        let mut real = self::text(language);
        real.truncate(300_000);
        for _ in 0..3000 {
            let at = random.next() as usize % real.len();
            real[at] = signs[random.next() as usize % signs.len()];
        }
        text.append(&mut real);
        let structure = Structure::scan(language, &text);
        let lines = text.iter().filter(|&&byte| byte == b'\n').count();
        assert!((lines..=lines + 1).contains(&structure.lines.len()));
    }
}

/// Time this thread has computed, where the system tells, so that a busy machine does not count.
fn processor_time() -> Duration {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = told.and_then(|text| text.split_whitespace().next()?.parse().ok());
    nanoseconds.map_or_else(|| BEGIN.get_or_init(Instant::now).elapsed(), Duration::from_nanos)
}

#[test]
fn scanning_is_linear_and_fast() {
    for language in languages() {
        let real = self::text(language);
        let time = |text: &[u8]| {
            let start = processor_time();
            let mut scanner = Scanner::new(language);
            scanner.feed(text);
            assert!(scanner.offset() == text.len());
            (processor_time() - start).as_secs_f64()
        };
        let text = real.repeat((4 << 20) / real.len() + 1);
        let best = |text: &[u8]| (0..3).map(|_| time(text)).fold(f64::INFINITY, f64::min);
        // A neighbour on the same core halves the speed for a while: the best of up to ten times three.
        let mut rate = 0.0;
        for _ in 0..10 {
            rate = f64::max(rate, text.len() as f64 / best(&text) / 1e6);
            if rate > 50.0 {
                break;
            }
        }
        eprintln!("{:10} {rate:.0} MB/s", language.name);
        assert!(rate > 50.0, "{}: {rate:.0} MB/s", language.name);
        for deep in [b"{".as_slice(), b"(", b"[ ", b"fn f() {\n", b"#if\n{\n", b"`${", b"/*"] {
            let once = best(&deep.repeat(800_000 / deep.len()));
            let four = best(&deep.repeat(3_200_000 / deep.len()));
            // Four times as long, or sixteen if it were quadratic; the system counts in steps of 4 ms.
            assert!(
                four < 8.0 * once + 0.04,
                "{}: {deep:?} takes {once} s, four times as many {four} s",
                language.name
            );
        }
    }
}
